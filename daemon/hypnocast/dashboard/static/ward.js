// The ward: a card per bed, in a place that never changes through the night.

import { by, el, say } from "./dom.js";
import { makeCard } from "./card.js";
import { retiring } from "./retire.js";
import { listen, prepare } from "./live.js";
import { bedName, byName, metWords } from "./words.js";

const cards = new Map();
const moods = new Map();
const notices = new Map();
/** Up to so many beds: how the ward is laid out, so that one screen holds it. */
const DENSITY = [[1, "one"], [4, "few"], [6, "some"], [8, "full"], [10, "ten"], [12, "twelve"], [Infinity, "dense"]];
const SPOKEN = {
  stale: "is silent", withheld: "withheld", ended: "has ended", staged: "is staged again",
};

const retire = retiring();

function place(bed) {
  if (!cards.has(bed)) {
    const made = makeCard(bed, retire);
    const item = el("li", { "data-bed": bed }, made.node);
    const list = by("ward");
    const after = [...list.children].find((other) => byName(other.dataset.bed, bed) > 0);
    list.insertBefore(item, after ?? null);
    cards.set(bed, { made, item });
  }
  return cards.get(bed).made;
}

function remove(bed) {
  cards.get(bed)?.item.remove();
  cards.delete(bed);
  moods.delete(bed);
  notices.delete(bed);
  summary();
}

function show(card) {
  place(card.bed).show(card, live.now());
  const before = moods.get(card.bed);
  const met = metWords(card);
  if (before && met && met !== notices.get(card.bed)) say(by("said"), `${bedName(card.bed)}: ${met}`);
  notices.set(card.bed, met);
  moods.set(card.bed, card.mood);
  if (before && before !== card.mood && SPOKEN[card.mood]) {
    say(by("said"), `${bedName(card.bed)} ${SPOKEN[card.mood]}`);
  }
  summary();
}

function summary() {
  const shown = [...cards.values()].map(({ made }) => made).filter((made) => made.card);
  const all = shown.map((made) => made.card);
  // What a bed did with its last news is not what its sleeper does now.
  const current = shown.filter((made) => !made.old).map((made) => made.card);
  const count = (mood) => current.filter((card) => card.mood === mood).length;
  const asleep = current.filter((card) => card.mood === "staged" && card.stage !== "W").length;
  const parts = [
    [all.length, all.length === 1 ? "bed" : "beds", false],
    [asleep, "asleep", false],
    [count("staged") - asleep, "awake", false],
    [count("withheld"), "withheld", true],
    [count("stale"), "silent", true],
    [shown.length - current.length, "without news", true],
    [count("ended"), "ended", false],
  ].filter(([number]) => number > 0);
  by("tally").replaceChildren(...parts.map(([number, words, loud]) =>
    el("span", { class: loud ? "loud" : null }, el("b", {}, String(number)), ` ${words}`)));
  by("ward").className = `ward ${DENSITY.find(([most]) => all.length <= most)[1]}`;
  by("empty").hidden = all.length > 0;
  const unreal = all.filter((card) => card.source !== "live");
  const notice = by("not-live");
  notice.hidden = unreal.length === 0;
  const kinds = [...new Set(unreal.map((card) => (card.source === "replay" ? "replayed" : "simulated")))].join(" and ");
  const which = unreal.length === all.length ? "All beds" : unreal.map((card) => bedName(card.bed)).sort(byName).join(", ");
  say(notice, `${which}: ${kinds} signals, not a person now.`);
}

prepare();
const live = listen("/api/ward/live", {
  card: show,
  gone: remove,
  beds: (names) => {
    for (const bed of [...cards.keys()]) if (!names.includes(bed)) remove(bed);
    if (names.length === 0) say(by("empty"), "The broker has no bed yet.");
  },
});
setInterval(() => {
  for (const { made } of cards.values()) made.age(live.now());
  if (cards.size > 0) summary();
}, 1000);
