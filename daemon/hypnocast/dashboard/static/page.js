// The picture of one page with its axes beside it, and leafing back through the night.

import { by, el, say, mark, svg } from "./dom.js";
import { PAGE_S, REASONS, STAGES, STAGE_WORDS, hms, percent } from "./words.js";

/** Shows pages of a bed; `onSelect(epoch or null)` is called with the one that is looked at. */
export function pagePanel(bed, onSelect) {
  let room = null;
  /** The page looked at; null follows the newest. */
  let chosen = null;
  let shown = "";
  let wanted = "";
  let object = null;
  let digest = null;
  /** Whether the page looked at has a stage. */
  let staged = false;

  /** The event is often a moment ahead of the night. */
  function newest() {
    const known = [];
    if (room?.night?.epochs) known.push(room.night.epochs - 1);
    if (room?.stage && room.stage.session === room.card.session) known.push(room.stage.epoch);
    return known.length ? Math.max(...known) : null;
  }
  const epoch = () => chosen ?? newest();

  function select(next) {
    const last = newest();
    chosen = next === null || last === null || next >= last ? null : Math.max(0, next);
    show(room);
    onSelect(chosen);
  }

  function show(next) {
    const another = room && next && next.card.session !== room.card.session;
    room = next;
    if (another) chosen = null;
    const here = epoch();
    stepper(here);
    axes(room.scale);
    verdict(here);
    compare(here);
    void picture(here);
  }

  function stepper(here) {
    const start = room.night ? Date.parse(room.night.start) : room.stage ? Date.parse(room.stage.start) - here * PAGE_S * 1000 : null;
    say(by("page-name"), here === null || start === null ? "no page yet"
      : `${hms(new Date(start + here * PAGE_S * 1000))} · page ${here}${chosen === null ? " (newest)" : ""}`);
    const none = here === null;
    by("first-page").disabled = by("previous-page").disabled = none || here === 0;
    by("next-page").disabled = by("newest-page").disabled = none || chosen === null;
    const slider = by("epoch");
    mark(slider, "max", newest() ?? 0);
    slider.disabled = none;
    if (!none && Number(slider.value) !== here) slider.value = String(here);
    if (!none) mark(slider, "aria-valuetext", by("page-name").textContent);
  }

  function verdict(here) {
    const event = room.stage && room.stage.epoch === here && room.stage.session === room.card.session ? room.stage : null;
    const night = room.night && here !== null && here < room.night.epochs ? room.night : null;
    const stage = event ? event.stage : night ? night.stages[here] : null;
    const reason = event ? event.reason : night ? night.reasons[here] : null;
    const status = event ? event.status : night ? { f: "final", p: "provisional", w: "withheld" }[night.status[here]] : null;
    const letter = by("page-stage");
    letter.className = stage ? `letter stage-${stage}` : "letter";
    say(letter, stage ?? (status === "withheld" ? "?" : ""));
    const review = event ? event.review : night?.review.includes(here);
    say(by("page-words"), status === null ? "" : status === "withheld"
      ? `withheld: ${REASONS[reason] ?? reason}`
      : `${STAGE_WORDS[stage]}, ${status}${review ? ", marked for review" : ""}`);
    const shares = event ? event.probabilities : night?.probabilities[here]
      ? Object.fromEntries(STAGES.map((name, place) => [name, night.probabilities[here][place] / 1000])) : null;
    showShares(by("page-shares"), shares);
    say(by("rationale"), event?.rationale ?? "");
    say(by("rules"), event?.rules?.length ? `Rules: ${event.rules.join(", ")}` : "");
    staged = stage !== null && stage !== undefined;
  }

  async function picture(here) {
    const retained = chosen === null && room.page !== null && !room.card.reason;
    const key = here === null ? "" : retained ? `retained ${room.page}` : `${room.card.session} ${here}`;
    if (key === wanted) return;
    wanted = key;
    if (here === null) return blank("No page yet.");
    const night = room.night;
    if (night && here < night.epochs && night.status[here] === "w") return blank(`No picture was judged: ${REASONS[night.reasons[here]] ?? ""}.`);
    const query = new URLSearchParams({ session: room.card.session ?? "", request: crypto.randomUUID() });
    const base = `/api/bed/${encodeURIComponent(bed)}/page`;
    try {
      const answer = await fetch(retained ? base : `${base}/${here}?${query}`);
      if (key !== wanted) return;
      if (!answer.ok) {
        const { error } = await answer.json();
        return blank(answer.status === 502 ? `${error} Pages of the past come from the daemon.` : error);
      }
      const blob = await answer.blob();
      if (key !== wanted) return;
      if (object) URL.revokeObjectURL(object);
      object = URL.createObjectURL(blob);
      const image = by("image");
      image.src = object;
      image.alt = `Page ${here} as the model saw it: ${room.scale ? room.scale.bands.map((band) => band.role).join(", ") : "its channels"}`;
      image.hidden = false;
      by("picture").classList.remove("blank");
      say(by("no-image"), "");
      mark(by("picture"), "data-epoch", here);
      shown = key;
      digest = answer.headers.get("x-picture-digest");
      compare(epoch());
    } catch {
      if (key === wanted) {
        wanted = "";
        if (!shown) blank("The server does not answer.");
      }
    }
  }

  /** Say whether the picture's pixels are those that the newest event was judged by. */
  function compare(here) {
    const judged = room.stage?.epoch === here ? room.stage.digests.picture : null;
    const short = digest ? digest.slice(7, 19) : "";
    say(by("digest"), !digest || wanted !== shown ? "" : judged === null ? `Picture ${short}` : judged === digest
      ? `Picture ${short}: the very pixels that were judged` : `Picture ${short}; its event has not come yet`);
  }

  function blank(words) {
    by("image").hidden = true;
    mark(by("picture"), "data-epoch", null);
    by("picture").classList.add("blank");
    say(by("no-image"), words);
    digest = null;
    say(by("digest"), "");
  }

  const step = (by_) => () => select((epoch() ?? 0) + by_);
  by("first-page").addEventListener("click", () => select(0));
  by("previous-page").addEventListener("click", step(-1));
  by("next-page").addEventListener("click", step(1));
  by("newest-page").addEventListener("click", () => select(null));
  by("epoch").addEventListener("input", (event) => select(Number(event.target.value)));

  return { show, select, epoch, staged: () => staged };
}

/** Bars of probability, the best one marked. */
export function showShares(list, shares) {
  if (!shares) return list.replaceChildren();
  const best = Math.max(...Object.values(shares));
  list.replaceChildren(...STAGES.map((stage) => bar(stage, shares[stage], shares[stage] === best, `fill-${stage}`)));
}

/** One bar of a share. */
export function bar(name, share, best, kind) {
  const rect = svg("rect", { class: kind, x: 0, y: 0, width: 100 * Math.max(0, Math.min(1, share)), height: 10 });
  return el("li", { class: best ? "best" : null }, el("span", {}, name),
    el("span", { class: "bar-box", "aria-hidden": "true" }, svg("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none" }, rect)),
    el("span", { class: "number" }, percent(share)));
}

function axes(scale) {
  const key = scale?.recipe ?? "none";
  const box = by("picture");
  if (box.dataset.scale === key) return;
  box.dataset.scale = key;
  if (!scale) {
    by("band-names").replaceChildren();
    by("band-scales").replaceChildren();
  } else {
    const trace = scale.trace_height / scale.bands.length;
    const rows = [];
    for (const band of scale.bands) rows.push([band, trace, band.half_span_uv ? `±${band.half_span_uv} µV` : "own range"]);
    if (scale.spectrogram_rows) {
      for (const band of scale.bands) rows.push([band, scale.spectrogram_rows, band.spectrum_hz ? band.spectrum_hz.map(Math.round).join("–") + " Hz" : ""]);
      const rest = scale.height - scale.trace_height - scale.spectrogram_rows * scale.bands.length;
      if (rest > 0) rows.push([null, rest, ""]);
    }
    by("band-names").replaceChildren(...rows.map(([band, height]) => sized(height, band && swatch(band), band?.role ?? "")));
    by("band-scales").replaceChildren(...rows.map(([, height, words]) => sized(height, null, words)));
  }
  by("seconds").replaceChildren(...[0, 5, 10, 15, 20, 25, 30].map((second) => el("span", {}, second === 30 ? "30 s" : String(second))));
}

function sized(height, first, words) {
  const node = el("div", { class: words ? null : "blank" }, first, words);
  node.style.setProperty("--rows", String(height));
  return node;
}

function swatch(band) {
  const node = el("i");
  node.style.background = band.colour;
  return node;
}
