/* The live figure of entropic transport: two clouds one can drag, and the plan between them.
   The solver is `otlib.sinkhorn.solve` once more, for some sixty points; tests hold one to the other. */
(() => {
  "use strict";

  /** @typedef {[number, number]} Point */
  /** @typedef {{f: number[], g: number[], plan: number[][], value: number, cost: number,
   *             arriving: number[], residual: number}} Solution */

  /** -eps log sum_j exp((h_j - c_ij) / eps) for each row i of the costs c.
   * @param {number[][]} c @param {number[]} h @param {number} eps @returns {number[]} */
  const softmin = (c, h, eps) =>
    c.map((row) => {
      let top = -Infinity;
      for (let j = 0; j < h.length; j++) top = Math.max(top, h[j] - row[j]);
      let sum = 0;
      for (let j = 0; j < h.length; j++) sum += Math.exp((h[j] - row[j] - top) / eps);
      return -top - eps * Math.log(sum);
    });

  /** <w, -phi*(-p)> with phi*(q) = rho (exp(q / rho) - 1), q where rho is infinite; w uniform.
   * @param {number[]} p @param {number} rho @returns {number} */
  const dual = (p, rho) =>
    p.reduce((sum, v) => sum + (rho === Infinity ? v : rho * (1 - Math.exp(-v / rho))), 0) / p.length;

  /** Sinkhorn's algorithm between uniform clouds, with the cost |x - y|^2.
   * @param {Point[]} x @param {Point[]} y @param {number} eps temperature > 0
   * @param {[number, number]} rho prices of leaving a marginal, > 0 or Infinity
   * @param {{g?: number[], updates?: number, tol?: number}} [how] potential to start from at eps;
   *   updates at most; residual at which to stop
   * @returns {Solution} */
  const solve = (x, y, eps, rho, how = {}) => {
    const c = x.map((p) => y.map((q) => (p[0] - q[0]) ** 2 + (p[1] - q[1]) ** 2));
    const turned = y.map((_, j) => c.map((row) => row[j]));
    const mean = c.flat().reduce((sum, v) => sum + v, 0) / (x.length * y.length);
    const { updates = 3000, tol = 1e-9 } = how;
    let f = x.map(() => 0);
    let g = how.g ?? y.map(() => 0);
    let residual = Infinity;
    let arriving = g;
    let t = how.g ? eps : Math.max(eps, mean);
    for (let k = 0; k < updates; k++) {
      const lift = -t * Math.log(y.length); // of the weights 1 / M
      f = softmin(c, g.map((v) => v + lift), t).map((v) => v / (1 + t / rho[0]));
      const back = softmin(turned, f.map((v) => v - t * Math.log(x.length)), t);
      arriving = g.map((v, j) => Math.exp((v - back[j]) / t) / y.length); // the plan's second marginal
      const wanted = g.map((v) => Math.exp(-v / rho[1]) / y.length);
      const mass = arriving.reduce((sum, v) => sum + v, 0);
      residual = arriving.reduce((sum, v, j) => sum + Math.abs(v - wanted[j]), 0) / mass;
      if (t === eps && residual <= tol) break;
      g = back.map((v) => v / (1 + t / rho[1]));
      t = Math.max(eps, 0.8 * t);
    }
    const plan = c.map((row, i) =>
      row.map((v, j) => Math.exp((f[i] + g[j] - v) / eps) / (x.length * y.length)));
    const mass = plan.flat().reduce((sum, v) => sum + v, 0);
    const value = dual(f, rho[0]) + dual(g, rho[1]) - eps * (mass - 1);
    const cost = plan.reduce((sum, row, i) => row.reduce((s, v, j) => s + v * c[i][j], sum), 0);
    return { f, g, plan, value, cost, arriving, residual };
  };

  /** Numbers in [0, 1), the same for the same seed (mulberry32).
   * @param {number} seed @returns {() => number} */
  const random = (seed) => () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };

  /** Two clouds in the unit square; the last of the second are wrong, and lie in a corner.
   * @param {number} count @param {number} wrong @param {number} seed @returns {[Point[], Point[]]} */
  const clouds = (count, wrong, seed) => {
    const draw = random(seed);
    const normal = () => Math.sqrt(-2 * Math.log(1 - draw())) * Math.cos(2 * Math.PI * draw());
    /** @param {Point} at @param {number} sd @returns {Point} */
    const around = (at, sd) => [at[0] + sd * normal(), at[1] + sd * normal()];
    const x = Array.from({ length: count }, () => around([0.3, 0.62], 0.09));
    const y = Array.from({ length: count }, (_, j) =>
      j < count - wrong ? around([0.52, 0.62], 0.09) : around([0.85, 0.15], 0.05));
    return [x, y];
  };

  /** The control of one number: a slider whose words say the number, the right end being infinity.
   * @param {string} label @param {number} low @param {number} high exponents of ten
   * @param {number} at @param {boolean} infinite @returns {[HTMLElement, () => number]} */
  const slider = (label, low, high, at, infinite) => {
    const box = document.createElement("label");
    const told = document.createElement("output");
    const input = document.createElement("input");
    Object.assign(input, { type: "range", min: low, max: high + (infinite ? 0.1 : 0), step: 0.05 });
    input.value = String(at);
    const value = () => (infinite && Number(input.value) > high ? Infinity : 10 ** Number(input.value));
    const tell = () => {
      const text = value() === Infinity ? "∞" : String(Number(value().toPrecision(2)));
      told.textContent = text;
      input.setAttribute("aria-valuetext", text === "∞" ? "infinite" : text);
    };
    input.addEventListener("input", tell);
    tell();
    box.append(label, input, told);
    return [box, value];
  };

  /** Fill a box of a page with the figure. @param {HTMLElement} host */
  const show = (host) => {
    const count = 60;
    let seed = 1;
    let wrong = 12;
    let [x, y] = clouds(count, wrong, seed);
    /** @type {number[] | undefined} */
    let g;
    let held = 0; // of x, then of y: the point that is dragged, or that the keys move
    let drawn = 0;

    const canvas = document.createElement("canvas");
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "application");
    canvas.setAttribute("aria-label",
      "Two clouds of points and the transport plan between them. Page up and page down choose a " +
      "point, the arrow keys move it.");
    const controls = document.createElement("div");
    const [epsBox, eps] = slider("temperature ε", -3, -0.5, -2.3, false);
    const [firstBox, first] = slider("price ρ₁, of blue points", -3, 0, 0.1, true);
    const [secondBox, second] = slider("price ρ₂, of orange points", -3, 0, 0.1, true);
    const share = document.createElement("label");
    const input = document.createElement("input");
    const told = document.createElement("output");
    Object.assign(input, { type: "range", min: 0, max: 30, step: 1, value: wrong });
    share.append("wrong orange points", input, told);
    const again = document.createElement("button");
    again.type = "button";
    again.textContent = "other points";
    const words = document.createElement("p");
    words.setAttribute("aria-live", "polite");
    controls.append(epsBox, firstBox, secondBox, share, again);
    host.replaceChildren(canvas, controls, words);

    const draw = () => {
      const size = canvas.clientWidth;
      const scale = window.devicePixelRatio || 1;
      canvas.width = canvas.height = Math.round(size * scale);
      const solution = solve(x, y, eps(), [first(), second()], { g, updates: 60, tol: 1e-6 });
      g = solution.g;
      const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
      pen.scale(canvas.width, canvas.width);
      const ink = getComputedStyle(canvas).color;
      const most = Math.max(...solution.plan.flat(), 1e-12);
      pen.strokeStyle = ink;
      pen.lineWidth = 1.2 / size;
      solution.plan.forEach((row, i) =>
        row.forEach((mass, j) => {
          if (mass < 0.02 * most) return;
          pen.globalAlpha = 0.7 * (mass / most);
          pen.beginPath();
          pen.moveTo(...x[i]);
          pen.lineTo(...y[j]);
          pen.stroke();
        }));
      pen.globalAlpha = 1;
      // the area of a point is the mass that it gives or gets
      const dot = (/** @type {Point} */ at, colour = "", mass = 1, square = false) => {
        const radius = (4.2 * Math.sqrt(Math.min(mass, 6))) / size;
        pen.fillStyle = colour;
        pen.beginPath();
        if (square) pen.rect(at[0] - radius, at[1] - radius, 2 * radius, 2 * radius);
        else pen.arc(at[0], at[1], radius, 0, 7);
        pen.fill();
      };
      x.forEach((at, i) => {
        pen.strokeStyle = "#0072b2";
        pen.beginPath();
        pen.arc(...at, 4 / size, 0, 7);
        pen.stroke();
        dot(at, "#0072b2", solution.plan[i].reduce((sum, v) => sum + v, 0) * count);
      });
      y.forEach((at, j) => {
        pen.strokeStyle = "#d55e00";
        pen.strokeRect(at[0] - 4 / size, at[1] - 4 / size, 8 / size, 8 / size);
        dot(at, "#d55e00", solution.arriving[j] * count, true);
      });
      if (document.activeElement === canvas) {
        pen.strokeStyle = ink;
        pen.beginPath();
        pen.arc(...[...x, ...y][held], 9 / size, 0, 7);
        pen.stroke();
      }
      const mass = solution.arriving.reduce((sum, v) => sum + v, 0);
      const lost = solution.arriving.slice(count - wrong).reduce((sum, v) => sum + v, 0);
      told.textContent = `${wrong} of ${count}`;
      input.setAttribute("aria-valuetext", told.textContent);
      words.textContent =
        `Transport cost ${solution.cost.toFixed(4)}, mass moved ${(100 * mass).toFixed(0)} %, ` +
        `of it on the wrong points ${(100 * lost / mass).toFixed(0)} %.`;
      host.dataset.residual = solution.residual.toExponential(1);
      if (solution.residual > 1e-6 && drawn++ < 60) requestAnimationFrame(draw); // goes on
    };
    const changed = (cold = false) => {
      if (cold) g = undefined;
      drawn = 0;
      requestAnimationFrame(draw);
    };
    const renew = () => {
      [x, y] = clouds(count, wrong, seed);
      changed(true);
    };
    const place = (/** @type {PointerEvent} */ event) => {
      const box = canvas.getBoundingClientRect();
      return /** @type {Point} */ ([
        (event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height]);
    };
    const move = (/** @type {Point} */ to) => {
      const within = /** @type {Point} */ (to.map((v) => Math.min(1, Math.max(0, v))));
      if (held < count) x[held] = within;
      else y[held - count] = within;
      changed();
    };
    canvas.addEventListener("pointerdown", (event) => {
      const at = place(event);
      const far = [...x, ...y].map((p) => Math.hypot(p[0] - at[0], p[1] - at[1]));
      held = far.indexOf(Math.min(...far));
      canvas.setPointerCapture(event.pointerId);
      canvas.focus();
      move(at);
      event.preventDefault();
    });
    canvas.addEventListener("pointermove", (event) => {
      if (canvas.hasPointerCapture(event.pointerId)) move(place(event));
    });
    canvas.addEventListener("keydown", (event) => {
      /** @type {Record<string, number[]>} */
      const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
      /** @type {Record<string, number>} */
      const turn = { PageUp: -1, PageDown: 1 };
      const at = [...x, ...y][held];
      if (event.key in step) move([at[0] + step[event.key][0] / 50, at[1] + step[event.key][1] / 50]);
      else if (event.key in turn) {
        held = (held + turn[event.key] + 2 * count) % (2 * count);
        changed();
      } else return;
      event.preventDefault();
    });
    for (const kind of ["focus", "blur"]) canvas.addEventListener(kind, () => changed());
    controls.addEventListener("input", (event) => {
      if (event.target === input) {
        wrong = Number(input.value);
        renew();
      } else changed(true);
    });
    again.addEventListener("click", () => {
      seed += 1;
      renew();
    });
    new ResizeObserver(() => changed()).observe(canvas);
    new MutationObserver(() => changed()).observe(document.documentElement, {
      attributeFilter: ["data-theme"] });
  };

  Object.assign(window, { liveSinkhorn: { solve, clouds } });
  document.addEventListener("DOMContentLoaded", () =>
    document.querySelectorAll(".live-sinkhorn").forEach((host) => show(/** @type {HTMLElement} */ (host))));
})();
