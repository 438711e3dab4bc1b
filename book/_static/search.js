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

  // Sphinx's index tells which pages have a word and not how often, so that most results have one
  // score and stand by their titles. Here a page that is about the word comes first, then one that has
  // it in a heading or describes a function of that name; of equals, a section before the lists.
  const LISTS = ["sections/scoreboard", "sections/equations"]; // which have nearly every word
  /** @typedef {[string, string, string, string | null, number, string]} Found
   * page, title, place on it, description, score, file */
  /** @typedef {{docnames: string[], titleterms: Record<string, number | number[]>,
   * objects: Record<string, [number, number, number, string, string][]>}} Index */

  /** @returns {{index: Index, stemmer: {stemWord: (word: string) => string}, skipped: string[]}} */
  const sphinx = () =>
    // @ts-ignore: names of searchtools.js and language_data.js, which only the page of the search has
    ({ index: Search._index, stemmer: new Stemmer(), skipped: stopwords });

  /** @param {string} text @returns {string[]} its words as the index has them */
  const stems = (text) => {
    const { stemmer, skipped } = sphinx();
    const words = text.toLowerCase().match(/[\p{L}\p{N}_]+/gu) ?? [];
    return words.filter((word) => !skipped.includes(word)).map((word) => stemmer.stemWord(word));
  };

  /** How much a page is about some words. @param {string} page @param {string} title @returns {number} */
  const weight = (page, title) => {
    const { docnames, titleterms, objects } = sphinx().index;
    const at = docnames.indexOf(page);
    const names = Object.values(objects).flat().filter(([place]) => place === at).map((one) => one[4]);
    const named = names.flatMap((name) => stems(name.replaceAll("_", " ")));
    const words = stems(asked.get("q") ?? "");
    const all = (/** @type {(word: string) => boolean} */ has) => words.every(has);
    if (all((word) => stems(title).includes(word))) return 30;
    const headed = (/** @type {string} */ word) => [titleterms[word] ?? []].flat().includes(at);
    return all((word) => headed(word) || named.includes(word)) ? 15 : 5;
  };

  /** @type {any} */ (window).Scorer = {
    // as Sphinx has them
    objNameMatch: 11, objPartialMatch: 6, objPrio: { 0: 15, 1: 5, 2: -5 }, objPrioDefault: 0,
    title: 15, partialTitle: 7, term: 5, partialTerm: 2,
    /** @param {Found} found @returns {number} */
    score: ([page, title, place, description, score]) => {
      // a place on a page, a function, a part of a word
      if (place || description !== null || score < 5) return score;
      return weight(page, title) + (page.startsWith("sections/") && !LISTS.includes(page) ? 1 : 0);
    },
  };

  // On a disk no page may read another for an excerpt: what the page is about stands there instead.
  if (!here || location.protocol !== "file:") return;
  // @ts-ignore: of Sphinx, which would try all the same
  DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;

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
