/* Pictures that a reader turns: companion/page/frames.py wrote all frames, this shows one of them. */
(() => {
  "use strict";

  /** @typedef {{key: string[], told: string, shown: number[], marks: number[][]}} Frame
   * key: what it shows, an item a control; told: the same in words; shown: for each panel, which
   * of the sources; marks: for each plot x and y in turn, in thousandths of its width. */
  /** @typedef {{sources: string[], titles: string[], frames: Frame[]}} Film */

  /** The frames that the lists choose, which are the slider's stops.
   * @param {Frame[]} frames @param {string[]} chosen @returns {Frame[]} */
  const stopsOf = (frames, chosen) =>
    frames.filter((frame) => chosen.every((value, place) => frame.key[place] === value));

  /** Where the slider stands after another choice: at the same value, or as near the same end.
   * @param {Frame[]} before @param {number} at @param {Frame[]} after @returns {number} */
  const kept = (before, at, after) => {
    const same = after.findIndex((frame) => frame.key.at(-1) === before[at]?.key.at(-1));
    const share = before.length > 1 ? at / (before.length - 1) : 0;
    return same >= 0 ? same : Math.round(share * (after.length - 1));
  };

  /** The data that a box of a page holds. @param {HTMLElement} host @returns {any} */
  const held = (host) => JSON.parse(host.querySelector("script")?.textContent ?? "");

  /** Show the controls of a box, which do nothing before. @param {HTMLElement} host */
  const reveal = (host) =>
    /** @type {NodeListOf<HTMLElement>} */ (host.querySelectorAll(".controls")).forEach(
      (controls) => { controls.hidden = false; });

  /** Give a box of a page its controls. @param {HTMLElement} host */
  const turn = (host) => {
    /** @type {Film} */
    const film = held(host);
    const find = (/** @type {string} */ what) => [...host.querySelectorAll(what)];
    const lists = /** @type {HTMLSelectElement[]} */ (find("select"));
    const [slider] = /** @type {HTMLInputElement[]} */ (find("input"));
    const images = /** @type {HTMLImageElement[]} */ (find(".panels img"));
    const plots = find(".panels svg").map((svg) => [...svg.querySelectorAll("circle")]);
    const [value] = find(".value");
    const [words] = find("p.told");
    let stops = stopsOf(film.frames, lists.map((list) => list.value));

    const draw = () => {
      const frame = stops[Number(slider.value)];
      images.forEach((image, place) => {
        const source = film.sources[frame.shown[place]];
        if (image.getAttribute("src") !== source) image.src = source;
        image.alt = `${film.titles[place]}: ${frame.told}`;
      });
      plots.forEach((circles, plot) =>
        circles.forEach((circle, place) => {
          circle.setAttribute("cx", String(frame.marks[plot][2 * place]));
          circle.setAttribute("cy", String(frame.marks[plot][2 * place + 1]));
        }));
      value.textContent = frame.key.at(-1) ?? "";
      words.textContent = frame.told;
      slider.setAttribute("aria-valuetext", value.textContent);
    };
    const place = (/** @type {number} */ at) => {
      slider.max = String(stops.length - 1);
      slider.value = String(at);
      draw();
    };
    for (const list of lists)
      list.addEventListener("input", () => {
        const before = stops;
        stops = stopsOf(film.frames, lists.map((other) => other.value));
        place(kept(before, Number(slider.value), stops));
      });
    slider.addEventListener("input", draw);
    // a browser that comes back to a page may have changed what is selected
    const start = film.frames[Number(host.dataset.start)];
    lists.forEach((list, number) => { list.value = start.key[number]; });
    stops = stopsOf(film.frames, lists.map((list) => list.value));
    place(stops.indexOf(start));
    reveal(host);
  };

  /** Let two lists choose what lies on either side of a handle. @param {HTMLElement} host */
  const choose = (host) => {
    /** @type {Record<string, string>} */
    const sources = held(host);
    const [right, left] = host.querySelectorAll("img");
    const names = host.querySelectorAll("p span");
    host.querySelectorAll("select").forEach((list, side) => {
      list.addEventListener("input", () => {
        const image = [left, right][side];
        image.src = sources[list.value];
        image.alt = list.value;
        names[side].textContent = list.value;
      });
      list.value = [left, right][side].alt; // a browser that comes back may have another
    });
    reveal(host);
  };

  /** @typedef {{key: string[], shown: number[], shape: [number, number]}} View
   * key: what it shows, an item a list; shown: for each panel, which of the sources; shape: height
   * and width, pixels. */

  /** Let a hand, keys or lists move one square over several pictures. @param {HTMLElement} host */
  const magnify = (host) => {
    /** @type {{sources: string[], titles: string[], views: View[]}} */
    const { sources, titles, views } = held(host);
    const find = (/** @type {string} */ what) => [...host.querySelectorAll(what)];
    const lists = /** @type {HTMLSelectElement[]} */ (find("select"));
    const [across, down] = /** @type {HTMLInputElement[]} */ (find("input"));
    const images = /** @type {HTMLImageElement[]} */ (find(".picture img"));
    const glasses = find("svg");
    const set = (/** @type {string} */ name, /** @type {number} */ value) =>
      host.style.setProperty(`--${name}`, String(value));

    let [height, width] = views[0].shape;
    const side = Number(host.style.getPropertyValue("--side"));

    const move = () => {
      const [right, below] = [across, down].map((slider) => Number(slider.value) / 100);
      set("across", right);
      set("down", below);
      const corner = `${right * (width - side)} ${below * (height - side)}`;
      for (const glass of glasses) glass.setAttribute("viewBox", `${corner} ${side} ${side}`);
      across.setAttribute("aria-valuetext", `${across.value} % from the left`);
      down.setAttribute("aria-valuetext", `${down.value} % from the top`);
    };
    const choose = () => {
      const view = views.find((one) => lists.every((list, at) => list.value === one.key[at]));
      if (!view) return;
      [height, width] = view.shape;
      set("height", height);
      set("width", width);
      view.shown.forEach((source, place) => {
        images[place].src = sources[source];
        images[place].alt = [...view.key, titles[place]].join(", ");
        const large = /** @type {SVGImageElement} */ (glasses[place].querySelector("image"));
        const told = { href: sources[source], width: String(width), height: String(height) };
        for (const [name, value] of Object.entries(told)) large.setAttribute(name, value);
      });
      move();
    };
    /** The square's middle goes where the pointer is. @param {PointerEvent} event */
    const follow = (event) => {
      const box = /** @type {HTMLElement} */ (event.currentTarget).getBoundingClientRect();
      /** @param {HTMLInputElement} slider @param {number} share @param {number} length */
      const put = (slider, share, length) => {
        const covered = side / length;
        slider.value = String(Math.round(100 * (share - covered / 2) / (1 - covered || 1)));
      };
      put(across, (event.clientX - box.left) / box.width, width);
      put(down, (event.clientY - box.top) / box.height, height);
      move();
    };
    for (const picture of /** @type {HTMLElement[]} */ (find(".picture"))) {
      picture.addEventListener("pointerdown", follow);
      picture.addEventListener("pointermove", follow);
    }
    for (const slider of [across, down]) slider.addEventListener("input", move);
    for (const list of lists) list.addEventListener("input", choose);
    // a browser that comes back to a page may have changed what is selected
    lists.forEach((list, at) => { list.value = views[Number(host.dataset.start)].key[at]; });
    across.value = down.value = "50";
    choose();
    reveal(host);
  };

  /** Tell in words where a handle between two images stands. @param {HTMLElement} host */
  const divide = (host) => {
    const slider = /** @type {HTMLInputElement} */ (host.querySelector("input"));
    const name = /** @type {HTMLElement} */ (host.querySelector("p span"));
    const tell = () =>
      slider.setAttribute("aria-valuetext", `${slider.value} % ${name.textContent}`);
    host.addEventListener("input", tell);
    tell();
  };

  document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll(".compare").forEach(
      (host) => divide(/** @type {HTMLElement} */ (host)));
    document.querySelectorAll(".frames").forEach((host) => turn(/** @type {HTMLElement} */ (host)));
    document.querySelectorAll(".loupe").forEach(
      (host) => magnify(/** @type {HTMLElement} */ (host)));
    document.querySelectorAll(".compare:has(select)").forEach(
      (host) => choose(/** @type {HTMLElement} */ (host)));
  });
})();
