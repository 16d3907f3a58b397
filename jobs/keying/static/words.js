// What the page says, in English and French.
"use strict";
const WORDS = {
  en: {
    title: "Review", welcome: "Key, check, correct", name: "Your name", start: "Begin",
    name_why: "It is kept with your answers, so that a row that is keyed twice goes to two people. No log has it.",
    text: "What stands in the picture", take: "Take it", blank: "Blank", illegible: "Illegible", crossed: "Crossed out",
    ask: "Ask a colleague", note: "Note to the colleague, then Enter", undo: "Take back", view: "More of the scan",
    next_unsure: "Next unsure word", suggest: "Suggest words", page_up: "Page ↑", page_down: "Page ↓", ctrl_space: "Ctrl Space",
    progress: "Progress", help: "Keys", other: "Français", other_code: "fr", close: "Close", help_title: "Keys",
    state: (n) => `${n.done} of ${n.total} done`, sending: "Saving …",
    where: (f, l) => `Field ${f}` + (l && l !== "0" ? `, line ${l}` : ""), picture: "Picture of the field",
    no_picture: "The picture can't be shown.", whole: "The whole scan", around: "Around the field",
    blind: "Keyed without a reading: type what you see.", settle: "Two people keyed this differently. You decide.",
    audit: "Stands in the transcription; below what was read.", asked: (note) => `A colleague asks: ${note}`, reason: (r) => `Not read: ${r}.`,
    unsure: (list) => `Unsure: ${list}`, given: "Your answer, taken back.",
    offline: "No connection. Your answer is kept here and sent again; leave this page open.",
    done: "Nothing is left for you", done_why: "All rows are done or wait for another person.",
    wait: "Others are at work on the last rows", wait_why: "This page looks again every ten seconds.",
    refused: {
      answered: "This row has been answered by somebody else.", unseen: "The text holds a character that can't be seen: type it again.", long: "The text is too long.",
      settled: "Somebody has built on this answer: it can't be taken back.", nothing: "There is no answer of yours to take back.", kind: "Write a note first.",
      tab: "The server was started again: open the address that it printed.", name: "Type a name of at most 60 letters.", disk: "The disk refuses to write: nothing after the last saved answer counts. Tell who runs the server.",
      id: "This answer can't be told from another one: load the page again.", row: "No such row.", crowded: "Too many pages are open.", changed: "A table that was written before has been changed by hand: it is not replaced.",
    },
    keys: [["Enter", "take the text, next row"], ["1 – 9", "an alternative, while nothing is typed yet"], ["← → Home End", "mend the text (digits are then digits)"], ["Shift Enter", "a new line"],
      ["F2", "the field is blank"], ["F4", "illegible"], ["F8", "crossed out"], ["F9", "ask a colleague"], ["F7", "next unsure word"], ["Ctrl Space", "suggest words that begin like this one"],
      ["Page ↑", "take back the last answer"], ["Page ↓", "surroundings, whole scan, field again"], ["Esc", "the reading as it was"], ["F1", "these keys"]],
    field: "Field", rows: "rows", exact: "alike, %", cer: "CER, %", all: "all", agreement: "How far two people agree", agreement_why: "Rows that two people keyed without a reading. In brackets 95 % intervals, over certificates.",
    uncertain: (n) => `${n} more are uncertain (illegible to one of them, or a colleague was asked) and counted apart.`,
    accepted: "What was accepted unread", no_sample: "No sample of it is keyed here (--sample).",
    accepted_part: (a) => `${a.done} of the sample's ${a.sampled_rows} rows are keyed: the error rate is told once all are.`,
    accepted_is: (a, p) => `${a.wrong} of ${a.sampled} sampled are wrong (${p(a.rate)}); of all ${a.units} accepted at most ${p(a.bound)}, with probability ${p(1 - a.delta, 0)}.`,
    figures: { left: "left", waiting: "wait for another person", minutes_per_100: "minutes a hundred rows", hours_spent: "hours spent", hours_saved: "hours saved against keying all", taken_as_read: "readings taken as they are", withdrawn: "answers taken back", people: "people", seconds_typing: "seconds that typing a row takes" },
    assumed: "assumed", measured: "measured", write: "Write the tables now", written: (n) => `${n} written.`,
  },
  fr: {
    title: "Relecture", welcome: "Saisir, vérifier, corriger", name: "Votre nom", start: "Commencer",
    name_why: "Il est gardé avec vos réponses, pour qu’une ligne en double saisie aille à deux personnes. Aucun journal système ne le contient.",
    text: "Ce qui est écrit sur l’image", take: "Valider", blank: "Vide", illegible: "Illisible", crossed: "Raturé",
    ask: "Demander à un collègue", note: "Note pour le collègue, puis Entrée", undo: "Reprendre", view: "Voir plus du scan",
    next_unsure: "Mot incertain suivant", suggest: "Proposer des mots", page_up: "Page ↑", page_down: "Page ↓", ctrl_space: "Ctrl Espace",
    progress: "Avancement", help: "Touches", other: "English", other_code: "en", close: "Fermer", help_title: "Touches",
    state: (n) => `${n.done} sur ${n.total} faits`, sending: "Enregistrement…",
    where: (f, l) => `Champ ${f}` + (l && l !== "0" ? `, ligne ${l}` : ""), picture: "Image du champ",
    no_picture: "L’image ne peut pas être affichée.", whole: "Le scan entier", around: "Autour du champ",
    blind: "Saisie sans lecture : tapez ce que vous voyez.", settle: "Deux personnes ont saisi différemment. À vous de décider.",
    audit: "La transcription ; dessous, ce qui a été lu.", asked: (note) => `Un collègue demande : ${note}`, reason: (r) => `Non lu : ${r}.`,
    unsure: (list) => `Incertain : ${list}`, given: "Votre réponse, reprise.",
    offline: "Pas de connexion. Votre réponse est gardée ici et renvoyée ; laissez cette page ouverte.",
    done: "Il ne reste rien pour vous", done_why: "Toutes les lignes sont faites ou attendent une autre personne.",
    wait: "D’autres travaillent aux dernières lignes", wait_why: "Cette page regarde à nouveau toutes les dix secondes.",
    refused: {
      answered: "Quelqu’un d’autre a répondu à cette ligne.", unseen: "Le texte contient un caractère invisible : retapez-le.", long: "Le texte est trop long.",
      settled: "Quelqu’un s’est appuyé sur cette réponse : elle ne peut plus être reprise.", nothing: "Aucune réponse de vous à reprendre.", kind: "Écrivez d’abord une note.",
      tab: "Le serveur a redémarré : ouvrez l’adresse qu’il a affichée.", name: "Tapez un nom de 60 lettres au plus.", disk: "Le disque refuse d’écrire : rien ne compte après la dernière réponse enregistrée. Prévenez le responsable du serveur.",
      id: "Cette réponse se confond avec une autre : rechargez la page.", row: "Cette ligne n’existe pas.", crowded: "Trop de pages sont ouvertes.", changed: "Une table écrite auparavant a été modifiée à la main : elle n’est pas remplacée.",
    },
    keys: [["Entrée", "valider, ligne suivante"], ["1 – 9", "une autre lecture, tant que rien n’est tapé"], ["← → Début Fin", "corriger le texte (les chiffres sont alors des chiffres)"], ["Maj Entrée", "à la ligne"],
      ["F2", "le champ est vide"], ["F4", "illisible"], ["F8", "raturé"], ["F9", "demander à un collègue"], ["F7", "mot incertain suivant"], ["Ctrl Espace", "proposer des mots qui commencent ainsi"],
      ["Page ↑", "reprendre la dernière réponse"], ["Page ↓", "alentours, scan entier, champ"], ["Échap", "la lecture d’origine"], ["F1", "ces touches"]],
    field: "Champ", rows: "lignes", exact: "identiques, %", cer: "CER, %", all: "tous", agreement: "L’accord entre deux personnes", agreement_why: "Lignes saisies par deux personnes sans lecture. Entre crochets, intervalles à 95 %, par certificat.",
    uncertain: (n) => `${n} autres sont incertaines (illisibles pour l’une, ou question à un collègue) et comptées à part.`,
    accepted: "Ce qui a été accepté sans relecture", no_sample: "Aucun échantillon n’en est saisi ici (--sample).",
    accepted_part: (a) => `${a.done} des ${a.sampled_rows} lignes de l’échantillon sont saisies : le taux d’erreur est donné quand toutes le sont.`,
    accepted_is: (a, p) => `${a.wrong} sur ${a.sampled} de l’échantillon sont fausses (${p(a.rate)}) ; sur les ${a.units} acceptées, au plus ${p(a.bound)}, avec probabilité ${p(1 - a.delta, 0)}.`,
    figures: { left: "restent", waiting: "attendent une autre personne", minutes_per_100: "minutes pour cent lignes", hours_spent: "heures passées", hours_saved: "heures gagnées par rapport à tout saisir", taken_as_read: "lectures validées telles quelles", withdrawn: "réponses reprises", people: "personnes", seconds_typing: "secondes pour saisir une ligne" },
    assumed: "supposé", measured: "mesuré", write: "Écrire les tables maintenant", written: (n) => `${n} écrites.`,
  },
};
let language = (navigator.language || "en").startsWith("fr") ? "fr" : "en";
const say = (name, ...values) => {
  const found = WORDS[language][name];
  return typeof found === "function" ? found(...values) : found;
};
const translate = () => {
  document.documentElement.lang = language;
  for (const part of document.querySelectorAll("[data-say]")) part.textContent = say(part.dataset.say);
  const button = document.getElementById("language");
  button.textContent = say("other");
  button.lang = say("other_code");
};
