// Light or dark: as the system says, until somebody chooses.

const theme = (() => {
  const key = "per-inject-theme";
  const choices = ["system", "light", "dark"];
  const signs = { system: "◐", light: "☀", dark: "☾" };
  // A browser may refuse storage to local files; then the choice lasts as long as the page.
  const remembered = () => {
    try {
      return localStorage.getItem(key);
    } catch {
      return null;
    }
  };
  const remember = (choice) => {
    try {
      localStorage.setItem(key, choice);
    } catch {
      // Not remembered.
    }
  };
  let chosen = "system";
  function choose(choice) {
    chosen = choices.includes(choice) ? choice : "system";
    if (chosen === "system") document.documentElement.removeAttribute("data-theme");
    else document.documentElement.setAttribute("data-theme", chosen);
    const toggle = byId("theme");
    toggle.textContent = signs[chosen];
    toggle.setAttribute("aria-label", `Colours: ${chosen}. Change`);
    toggle.setAttribute("title", `Colours: ${chosen}`);
  }
  return {
    start() {
      choose(remembered());
      byId("theme").addEventListener("click", () => {
        choose(choices[(choices.indexOf(chosen) + 1) % choices.length]);
        remember(chosen);
      });
    },
  };
})();
