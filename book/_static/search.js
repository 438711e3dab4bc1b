/* What the theme's search lacks. */
(() => {
  "use strict";
  const here = location.pathname.endsWith("/search.html");

  // Formulas and code name Greek letters in Latin ones: who searches for ρ is led to what says rho.
  /** @type {Record<string, string>} */
  const GREEK = {
    α: "alpha", β: "beta", γ: "gamma", ε: "eps", η: "eta", λ: "lambda", μ: "mu", ν: "nu", π: "pi",
    ρ: "rho", σ: "sigma", φ: "phi", ϕ: "phi",
  };
  const asked = new URLSearchParams(location.search);
  const spelled = [...(asked.get("q") ?? "")].map((letter) => GREEK[letter] ?? letter).join("");
  if (here && spelled !== (asked.get("q") ?? "")) {
    asked.set("q", spelled);
    location.replace(`${location.pathname}?${asked}`);
  }

  // On a disk no page may read another for an excerpt: what the page is about stands there instead.
  if (!here || location.protocol !== "file:") return;

  /** @param {Record<string, string>} about address: what the page is about */
  const tell = (about) =>
    document.querySelectorAll("#search-results ul.search > li:not(:has(.about))").forEach((item) => {
      const address = item.querySelector("a")?.getAttribute("href")?.split(/[?#]/)[0] ?? "";
      if (!about[address]) return;
      const words = document.createElement("p");
      words.className = "about";
      words.textContent = about[address];
      item.append(words);
    });

  document.addEventListener("DOMContentLoaded", () => {
    const script = document.createElement("script");
    script.src = "_static/descriptions.js";
    script.addEventListener("load", () => {
      const about = /** @type {any} */ (window).DESCRIPTIONS;
      const list = /** @type {HTMLElement} */ (document.getElementById("search-results"));
      new MutationObserver(() => tell(about)).observe(list, { childList: true, subtree: true });
      tell(about);
    });
    document.head.append(script);
  });
})();
