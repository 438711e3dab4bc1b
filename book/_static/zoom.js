/* A figure in a window of its own: pictures at a whole multiple of their pixels, curves as wide as it; and the
   way from a figure to its code. */
(() => {
  "use strict";
  const FIGURES = "article figure:has(figcaption) img";

  /** How wide a figure is there. @param {HTMLImageElement} image @returns {string} */
  const width = (image) => {
    if (/\.svg$/.test(new URL(image.src).pathname)) return "100%";
    const room = Math.min(innerWidth / image.naturalWidth, innerHeight / image.naturalHeight);
    const pixel = 1 / devicePixelRatio; // of the screen, in those of the page
    return `${image.naturalWidth * Math.max(pixel, Math.floor(0.9 * room / pixel) * pixel)}px`;
  };

  /** Open the fold with the code of a figure. @param {HTMLDetailsElement} fold */
  const tell = (fold) => {
    fold.open = true;
    fold.scrollIntoView();
    fold.querySelector("summary")?.focus();
  };

  /** @param {string} text @param {string} label @returns {HTMLButtonElement} */
  const button = (text, label) => {
    const made = document.createElement("button");
    made.type = "button";
    made.className = "zoom";
    made.textContent = text;
    made.setAttribute("aria-label", label);
    return made;
  };

  /** Show a figure in a window. @param {HTMLImageElement} image @param {string} name */
  const show = (image, name) => {
    const window = document.createElement("dialog");
    window.className = "zoom";
    window.setAttribute("aria-label", name);
    const large = document.createElement("img");
    Object.assign(large, { src: image.src, alt: image.alt });
    large.style.width = width(image);
    const box = document.createElement("div");
    box.tabIndex = 0; // the keyboard scrolls it
    box.append(large);
    const close = button("✕", "Close");
    close.addEventListener("click", () => window.close());
    window.addEventListener("click", (event) => {
      if (event.target === window) window.close(); // beside the figure
    });
    window.addEventListener("close", () => window.remove());
    window.append(close, box);
    document.body.append(window);
    window.showModal();
  };

  document.addEventListener("DOMContentLoaded", () => {
    for (const found of document.querySelectorAll(FIGURES)) {
      const image = /** @type {HTMLImageElement} */ (found);
      if (image.closest("a, .frames, .compare, .along")) continue;
      const figure = /** @type {HTMLElement} */ (image.closest("figure"));
      const name = figure.querySelector(".caption-number")?.textContent?.trim() || "figure";
      const open = button("⤢", `Enlarge ${name}`);
      open.addEventListener("click", () => show(image, name));
      image.addEventListener("click", () => show(image, name));
      image.classList.add("zoomed");
      figure.querySelector("figcaption")?.append(open);
      const fold = figure.closest(".cell")?.querySelector("details.above-input");
      if (!(fold instanceof HTMLDetailsElement)) continue; // the code of a lead stands elsewhere
      const code = button("</>", `Code of ${name}`);
      code.addEventListener("click", () => tell(fold));
      open.before(code);
    }
  });
})();
