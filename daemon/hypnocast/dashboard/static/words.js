// How stages, times and reasons are said.

export const STAGES = ["W", "N1", "N2", "N3", "R"];
/** Top to bottom, as hypnograms are drawn. */
export const LEVELS = ["W", "R", "N1", "N2", "N3"];
export const PAGE_S = 30;

export const STAGE_WORDS = { W: "Wake", N1: "N1", N2: "N2", N3: "N3", R: "REM" };

export const REASONS = {
  low_coverage: "too little signal on the page",
  missing_channel: "a needed channel is missing",
  detached: "electrode detached",
  out_of_scale: "signal out of scale",
  unknown_unit: "unit of the signal unknown",
  too_late: "the model answered too late",
  no_model: "no model can run",
  daemon_down: "the daemon was down",
  session_end: "the session ended within the page",
};

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const clockSeconds = new Intl.DateTimeFormat("en-GB", {
  hour: "2-digit", minute: "2-digit", second: "2-digit",
});

/** 03:12 */
export const hm = (when) => clock.format(typeof when === "string" ? new Date(when) : when);
/** 03:12:30 */
export const hms = (when) => clockSeconds.format(typeof when === "string" ? new Date(when) : when);

/** 45 s, 12 min, 1 h 05 min */
export function lasting(seconds) {
  if (seconds < 60) return `${Math.max(0, Math.round(seconds))} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}

export const percent = (share) => `${Math.round(100 * share)} %`;

/** Orders bed 2 before bed 10. */
export const byName = (a, b) => a.localeCompare(b, "en", { numeric: true });

/** Bed "3" is called Bed 3; "bed-3" and "north" are called by their names. */
export const bedName = (bed) => (/^\d+$/.test(bed) ? `Bed ${bed}` : bed.replace(/^bed[-_]?(\d+)$/i, "Bed $1"));
