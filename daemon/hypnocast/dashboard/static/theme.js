// Runs before anything is painted, so that nobody is dazzled at night. Dark unless chosen light.
(() => {
  let chosen = null;
  try {
    chosen = localStorage.getItem("theme");
  } catch {
    // A browser that keeps nothing gets the dark page.
  }
  document.documentElement.dataset.theme = chosen === "light" ? "light" : "dark";
})();
