// Where `companion serve` serves the page, and says so in its head, the fold *Rerun this page* is a
// form: it starts runs, shows how far they are, and leads to the page with their numbers. Opened
// from disk or from a static host the page has no such mark, and the fold shows the commands alone.
document.addEventListener("DOMContentLoaded", async () => {
  const mark = /** @type {HTMLMetaElement | null} */ (
    document.querySelector('meta[name="companion-serve"]')
  );
  const fold = document.querySelector(".admonition.rerun");
  if (!mark || !fold || !/^https?:$/.test(location.protocol)) return;
  const page = mark.content;
  const run = mark.dataset.run ?? "";

  /** @typedef {{name: string, type: string, meaning: string, placeholder: string,
   *   numeric: boolean, choices: string[], path: boolean, new: boolean, upload: boolean}} Parameter */
  /** @typedef {{label: string, done: number, total: number, left: number | null}} Bar */
  /** @typedef {{id: string, state: string, message: string, values: Record<string, string>,
   *   profile: string, axes: string[], result: string, command: string, link: string, made: string,
   *   ahead: number, bars: Bar[]}} Job */
  /** @typedef {Error & {fields?: Record<string, string>}} Refusal */

  const LIVE = ["waiting", "running", "rendering"];
  /** @type {Record<string, string>} */
  const STATES = {
    waiting: "waits",
    running: "runs",
    rendering: "is done, its page is being made",
    done: "is done",
    failed: "failed",
    cancelled: "was cancelled; what was done of it is kept",
    interrupted: "was interrupted",
  };

  /**
   * Make an element.
   * @template {keyof HTMLElementTagNameMap} T
   * @param {T} tag
   * @param {Record<string, string | EventListener>} [told] attributes, and listeners by their event
   * @param {...(Node | string)} inside
   * @returns {HTMLElementTagNameMap[T]}
   */
  function make(tag, told = {}, ...inside) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(told)) {
      if (typeof value === "string") element.setAttribute(name, value);
      else element.addEventListener(name, value);
    }
    element.append(...inside);
    return element;
  }

  /**
   * Ask the server; a refusal is an error whose message is for the reader.
   * @param {string} path below /companion/
   * @param {RequestInit} [how]
   * @returns {Promise<any>}
   */
  async function ask(path, how) {
    let answer;
    try {
      answer = await fetch(`/companion/${path}`, how);
    } catch {
      throw new Error("The server does not answer: is companion serve still running?");
    }
    const told = await answer.json().catch(() => ({ error: answer.statusText }));
    if (!answer.ok) throw Object.assign(new Error(told.error), { fields: told.fields ?? {} });
    return told;
  }

  /** @param {string} path @param {object} [what] @returns {Promise<any>} */
  const send = (path, what = {}) =>
    ask(path, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(what),
    });

  const status = make("p", { role: "status", class: "told" });
  /** @param {string} text */
  const say = (text) => (status.textContent = text);
  const spoken = make("p", { role: "status", class: "visually-hidden" }); // of who hears the page
  let heard = 0; // when it last told how far a run is

  /** @type {any} the form of the page, as companion/serve/forms.py describes it */
  let about;
  try {
    about = await ask(`forms/${page}${run && `?run=${run}`}`);
  } catch (error) {
    fold.append(status);
    say(/** @type {Refusal} */ (error).message);
    return;
  }
  /** @type {Parameter[]} */
  const parameters = about.parameters;
  /** @type {Map<string, HTMLInputElement | HTMLSelectElement>} */
  const fields = new Map();

  // --- the form ---------------------------------------------------------------------------------

  const profile = make("select", { id: "rerun-profile", "aria-describedby": "rerun-took" });
  for (const name of Object.keys(about.profiles)) profile.append(make("option", {}, name));
  const took = make("p", { class: "hint", id: "rerun-took" });

  /**
   * The field of a parameter: what fits its type.
   * @param {Parameter} one
   */
  function field(one) {
    const id = `rerun-${one.name}`;
    const told = { id, name: one.name, "aria-describedby": `${id}-hint ${id}-wrong` };
    const open = one.path || one.type === "list" || one.choices.some((name) => name.endsWith(":N"));
    const names = one.type === "bool" ? ["true", "false"] : one.choices;
    let input;
    if (names.length && !open) {
      input = make("select", told, ...names.map((name) => make("option", {}, name)));
    } else {
      input = make("input", {
        ...told,
        type: "text",
        autocomplete: "off",
        spellcheck: "false",
        placeholder: one.placeholder,
      });
    }
    fields.set(one.name, input);
    const box = make("div", { class: "field" });
    box.append(make("label", { for: id }, make("code", {}, one.name)), input);
    if (names.length && open && one.type === "str") {
      input.setAttribute("list", `${id}-names`);
      const listed = names.filter((name) => !name.endsWith(":N"));
      box.append(
        make("datalist", { id: `${id}-names` }, ...listed.map((value) => make("option", { value })))
      );
    }
    if (one.upload) box.append(sender(one, input));
    if ((one.path || one.new) && about.folders) {
      box.append(make("button", { type: "button", click: () => pick(one, input) }, "Choose a path"));
    }
    box.append(make("p", { class: "hint", id: `${id}-hint` }, one.meaning));
    box.append(make("p", { class: "wrong", id: `${id}-wrong`, role: "alert" }));
    return box;
  }

  /**
   * A button that sends an image of the reader's to the server.
   * @param {Parameter} one
   * @param {HTMLInputElement | HTMLSelectElement} input
   */
  function sender(one, input) {
    const file = make("input", { type: "file", accept: "image/*" });
    file.addEventListener("change", async () => {
      const image = file.files?.[0];
      if (!image) return;
      wrong(one.name, "");
      say(`Sending ${image.name} …`);
      try {
        const how = { method: "POST", body: image };
        const kept = await ask(`uploads?name=${encodeURIComponent(image.name)}`, how);
        input.value = kept.path;
        await look();
        say(`${image.name}: ${kept.width} × ${kept.height} pixels. ${status.textContent}`);
      } catch (error) {
        say("");
        wrong(one.name, /** @type {Refusal} */ (error).message);
      }
      file.value = "";
    });
    return make("label", { class: "upload" }, "Image of yours: ", file);
  }

  /**
   * Let the reader walk through the folders that the server was given.
   * @param {Parameter} one
   * @param {HTMLInputElement | HTMLSelectElement} input
   */
  async function pick(one, input) {
    const dialog = make("dialog", { class: "rerun-picker", "aria-label": `Path for ${one.name}` });
    const list = make("ul");
    const where = make("p", { role: "status" });
    const take = make("button", { type: "button" }, "Take this folder");
    const close = make("button", { type: "button", click: () => dialog.close() }, "Close");
    /** @param {string} path */
    const choose = (path) => {
      input.value = path;
      dialog.close();
      look();
    };
    /** @param {string} folder */
    const show = async (folder) => {
      try {
        const told = await ask(`files?folder=${encodeURIComponent(folder)}`);
        where.textContent = told.folder || "Folders of this server";
        take.hidden = !told.folder;
        take.onclick = () => choose(told.folder);
        /** @param {string} text @param {() => void} act */
        const row = (text, act) =>
          make("li", {}, make("button", { type: "button", click: act }, text));
        const name = (/** @type {string} */ path) => (told.folder ? path.split("/").pop() : path);
        list.replaceChildren(
          ...(told.above === null ? [] : [row("Back", () => show(told.above))]),
          ...told.folders.map((/** @type {string} */ to) => row(`${name(to)}/`, () => show(to))),
          ...told.files.map((/** @type {string} */ to) => row(`${name(to)}`, () => choose(to)))
        );
        list.querySelector("button")?.focus();
      } catch (error) {
        where.textContent = /** @type {Refusal} */ (error).message;
      }
    };
    dialog.append(where, list, take, close);
    dialog.addEventListener("close", () => {
      dialog.remove();
      input.focus();
    });
    document.body.append(dialog);
    dialog.showModal();
    await show("");
  }

  /**
   * Show a line at a field, or none.
   * @param {string} name
   * @param {string} text
   */
  function wrong(name, text) {
    const line = document.getElementById(`rerun-${name}-wrong`);
    if (line && line.textContent !== text) line.textContent = text;
    if (text) fields.get(name)?.setAttribute("aria-invalid", "true");
    else fields.get(name)?.removeAttribute("aria-invalid");
  }

  /** @param {unknown} error */
  function refused(error) {
    const { message, fields: lines = {} } = /** @type {Refusal} */ (error);
    for (const name of fields.keys()) wrong(name, lines[name] ?? "");
    const unknown = Object.keys(lines).filter((name) => !fields.has(name));
    const count = Object.keys(lines).length - unknown.length;
    const told = unknown.map((name) => `${name}: ${lines[name]}.`);
    if (count) told.unshift(`${count} ${count > 1 ? "values are" : "value is"} not possible.`);
    say(told.join(" ") || message);
  }

  /** What the form holds. */
  function asked() {
    const values = Object.fromEntries([...fields].map(([name, input]) => [name, input.value]));
    return { notebook: page, profile: profile.value, values };
  }

  /**
   * The values of the profile, and others where they are given.
   * @param {Record<string, string>} other
   */
  function fill(other = {}) {
    const values = { ...about.profiles[profile.value], ...other };
    for (const [name, input] of fields) {
      input.value = values[name] ?? "";
      wrong(name, "");
    }
    say("");
    const time = about.times[profile.value];
    took.textContent = time ? `It took ${time} when it last ran here.` : "";
  }

  let looks = 0; // what the server says to values that have changed since is not shown

  /** Have the values looked at, without running them. */
  async function look() {
    const turn = ++looks;
    try {
      const { points, done, ...told } = await send("check", asked());
      if (turn !== looks) return;
      if (told.fields) throw Object.assign(new Error(told.error), told);
      for (const name of fields.keys()) wrong(name, "");
      const many = `${points} points, ${done} of them run already.`;
      say(points > 1 ? many : done ? "Run already: its result is there at once." : "");
      start.textContent = points > 1 ? `Run ${points} points` : "Run";
    } catch (error) {
      if (turn === looks) refused(error);
    }
  }

  const start = make("button", { type: "submit", class: "main" }, "Run");
  const back = make("button", { type: "button" }, "Values of the profile");
  const form = make("form", { class: "rerun-form", novalidate: "", "aria-label": "Rerun this page" });
  form.append(
    make(
      "p",
      {},
      "A number may be several: ",
      make("code", {}, "0.1, 1, 10"),
      ", or ",
      make("code", {}, "0.1:10:3 log"),
      " for three from 0.1 to 10, without ",
      make("code", {}, "log"),
      " evenly spaced. All are run, and plotted as they come."
    ),
    make("div", { class: "field" }, make("label", { for: profile.id }, "Profile"), profile, took),
    make("div", { class: "fields" }, ...parameters.map(field)),
    make("p", { class: "buttons" }, start, " ", back)
  );
  if (about.changed) {
    const command = `companion build --profile ${about.built}`;
    form.prepend(
      make(
        "p",
        { class: "wrong" },
        "The notebook has changed since this page was built; runs are of the present one. ",
        "To build: ",
        make("code", {}, command)
      )
    );
  }
  profile.addEventListener("change", () => {
    fill();
    look();
  });
  back.addEventListener("click", () => {
    fill();
    look();
  });
  form.addEventListener("change", (event) => {
    const { target } = event;
    if (target !== profile && !(/** @type {Element} */ (target).matches("[type=file]"))) look();
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    looks++;
    try {
      const job = await send("runs", asked());
      for (const name of fields.keys()) wrong(name, "");
      say(`The run ${STATES[job.state]}.`);
      await listen();
      cards.get(job.id)?.box.scrollIntoView({ block: "nearest" });
    } catch (error) {
      refused(error);
      /** @type {HTMLElement | null} */ (form.querySelector("[aria-invalid]"))?.focus();
    }
  });

  // --- the runs ---------------------------------------------------------------------------------

  const runs = make("section", { class: "rerun-runs", "aria-label": "Runs of this page", hidden: "" });
  /** @typedef {{box: HTMLElement, shown: string, state: string, bars: HTMLElement,
   *   plot?: () => void}} Card */
  /** @type {Map<string, Card>} */
  const cards = new Map();

  /** @param {string} text @param {string} href */
  const link = (text, href) => make("a", { href }, text);

  /** @param {number} seconds */
  const time = (seconds) =>
    seconds < 90
      ? `${seconds} s`
      : seconds < 5400
        ? `${Math.round(seconds / 60)} min`
        : `${Math.round(seconds / 3600)} h`;

  /** @param {Bar} bar */
  const words = ({ label, done, total, left }) =>
    `${label}: ${done} of ${total}${left === null ? "" : `, ${time(left)} left`}`;

  /**
   * A button that asks something of a job; where it is refused, and of a run that goes, the reader
   * is told.
   * @param {Job} job @param {string} what @param {string} text
   */
  const act = (job, what, text) =>
    make(
      "button",
      {
        type: "button",
        click: () =>
          send(`jobs/${job.id}/${what}`)
            .then(() => what === "remove" && say(`The run ${title(job)} is removed.`))
            .catch((error) => say(error.message)),
      },
      text
    );

  /** @param {Job} job */
  const title = ({ profile, values }) =>
    [profile, ...Object.entries(values).map(([name, value]) => `${name} = ${value}`)].join(", ");

  /**
   * What a run leads to: its comparison with the published one, its two files.
   * @param {string} run @param {string} words of the first
   */
  const files = (run, words) => [
    ...(run === about.published
      ? []
      : [link(words, `/companion/compare?with=${about.published}&run=${run}`)]),
    link("Executed notebook", `/companion/runs/${run}/ipynb`),
    link("JSON", `/companion/runs/${run}/json`),
  ];

  /**
   * What a job shows and offers in its state.
   * @param {Job} job
   */
  function content(job) {
    const told = make("p", {}, make("strong", {}, title(job)), ` ${STATES[job.state]}. `);
    told.append(job.message, job.state === "waiting" && job.ahead ? `${job.ahead} before it.` : "");
    const offers = make("p", { class: "offers" });
    if (["waiting", "running"].includes(job.state)) offers.append(act(job, "cancel", "Cancel"));
    if (["failed", "cancelled", "interrupted"].includes(job.state)) {
      offers.append(act(job, "resume", "Go on"));
    }
    if (job.state === "done" && !job.axes.length) {
      offers.append(link("Page with its numbers", `?run=${job.result}`));
      offers.append(...files(job.result, "Compared with the published"));
    }
    if (job.state === "done" && job.axes.length) {
      offers.append(link("table.csv", `/companion/sweeps/${job.id}/table.csv`));
    }
    offers.append(link("Form with its values", location.pathname + job.link));
    if (!LIVE.includes(job.state)) offers.append(act(job, "remove", "Remove"));
    return [told, offers, make("p", {}, make("code", {}, job.command))];
  }

  /**
   * The plots of a sweep: one record at a time, drawn again as points come.
   * @param {Job} job
   */
  function plots(job) {
    const id = `plot-${job.id}`;
    const choice = make("select", { id, change: () => draw() });
    const image = make("img", { alt: "" });
    const box = make("div", { hidden: "" }, make("label", { for: id }, "Plot of "), choice, image);
    let points = -1;
    const draw = () => {
      image.src = `/companion/sweeps/${job.id}/plot?record=${choice.value}&points=${points}`;
      image.alt = `${choice.value} over ${job.axes.map((axis) => axis.split("=")[0]).join(", ")}`;
    };
    const update = async () => {
      const told = await ask(`sweeps/${job.id}/records`).catch(() => ({ points, records: [] }));
      if (told.points === points || !told.records.length) return;
      points = told.points;
      const before = choice.value;
      const options = told.records.map((/** @type {string} */ one) => make("option", {}, one));
      choice.replaceChildren(...options);
      if (told.records.includes(before)) choice.value = before;
      box.hidden = false;
      draw();
    };
    return { box, update };
  }

  /**
   * Show the jobs; what has not changed is left alone, and so is who reads or types there.
   * @param {Job[]} jobs
   */
  function show(jobs) {
    for (const [id, card] of cards) {
      if (jobs.some((job) => job.id === id)) continue;
      card.box.remove();
      cards.delete(id);
    }
    let last = null;
    for (const job of jobs) {
      let card = cards.get(job.id);
      if (!card) {
        const inside = make("div");
        const bars = make("div", { class: "bars" });
        const box = make("article", { "aria-label": title(job) }, inside, bars);
        card = { box, shown: "", state: job.state, bars };
        if (job.axes.length) {
          const { box: drawn, update } = plots(job);
          card.plot = update;
          box.append(drawn);
        }
        cards.set(job.id, card);
        if (last) last.after(box);
        else runs.prepend(box);
      }
      const { bars, ...rest } = job;
      const shown = JSON.stringify(rest);
      if (card.shown !== shown) {
        const inside = /** @type {HTMLElement} */ (card.box.firstElementChild);
        const held = inside.contains(document.activeElement);
        inside.replaceChildren(...content(job));
        if (held) /** @type {HTMLElement | null} */ (inside.querySelector("a, button"))?.focus();
        if (card.shown && card.state !== job.state) {
          say(`The run ${title(job)} ${STATES[job.state]}. ${job.message}`);
        }
        card.shown = shown;
        card.state = job.state;
        card.plot?.();
      }
      progress(card.bars, bars);
      if (bars.length && Date.now() > heard + 15000) {
        spoken.textContent = `${title(job)}: ${bars.map(words).join("; ")}`;
        heard = Date.now();
      }
      if (bars.length) card.plot?.();
      last = card.box;
    }
    runs.hidden = !jobs.length;
  }

  /**
   * @param {HTMLElement} box
   * @param {Bar[]} bars
   */
  function progress(box, bars) {
    while (box.children.length > bars.length) box.lastElementChild?.remove();
    bars.forEach((bar, index) => {
      if (!box.children[index]) box.append(make("label", {}, make("progress"), make("span")));
      const [line, text] = /** @type {[HTMLProgressElement, HTMLElement]} */ (
        [...box.children[index].children]
      );
      line.max = bar.total || 1;
      line.value = bar.done;
      text.textContent = words(bar);
    });
  }

  /** @type {EventSource | null} */
  let source = null;
  let lost = false;

  /** Listen to what the server tells of the jobs, while the page can be seen. */
  function listen() {
    source?.close();
    if (document.hidden) return Promise.resolve();
    const stream = (source = new EventSource(`/companion/events/${page}`));
    return new Promise((listened) => {
      stream.onmessage = ({ data }) => {
        if (lost) say("The server answers again.");
        lost = false;
        show(JSON.parse(data));
        listened(undefined);
      };
      stream.onerror = () => {
        if (!lost) say("The server does not answer; this page tries again.");
        lost = true;
        if (stream.readyState === EventSource.CLOSED) setTimeout(listen, 3000);
        listened(undefined);
      };
    });
  }
  document.addEventListener("visibilitychange", () => listen());
  addEventListener("pagehide", () => source?.close());

  // --- what the address asks for ----------------------------------------------------------------

  const given = new URLSearchParams(location.search);
  const parts = [...given].filter(([name]) => name.startsWith("p."));
  const values = Object.fromEntries(parts.map(([name, value]) => [name.slice(2), value]));
  const filled = Object.keys(values).length > 0 || given.has("profile");
  const READ = ["run", "profile", "q", "highlight"]; // the last two by the search
  const other = [...new Set(given.keys())].filter(
    (name) => !name.startsWith("p.") && !READ.includes(name)
  );
  const named = given.get("profile") ?? about.profile;
  const known = Object.keys(about.profiles).includes(named);
  profile.value = known ? named : about.profile;
  fill(filled ? values : about.values);

  const commands = make("details", {}, make("summary", {}, "By a command"));
  commands.append(...[...fold.children].filter((part) => !part.matches(".admonition-title")));
  fold.append(form, status, spoken, runs, commands);
  if (run) {
    document.querySelector(".bd-article section > h1")?.after(
      make(
        "div",
        { class: "admonition note rerun-shown", role: "note" },
        make("p", { class: "admonition-title" }, "Numbers of a run of yours"),
        make("p", {}, `${about.run.title}. `),
        make(
          "p",
          { class: "offers" },
          link("The published page", location.pathname),
          ...files(run, "Compared with it"),
          link("Form with its values", location.pathname + about.run.link)
        ),
        make("p", {}, make("code", {}, about.run.command))
      )
    );
  }
  if (filled || other.length || location.hash === "#rerun") {
    const button = /** @type {HTMLElement | null} */ (fold.querySelector(".toggle-button"));
    if (fold.classList.contains("toggle-hidden")) button?.click();
    fold.scrollIntoView();
    profile.focus({ preventScroll: true });
    const unknown = Object.keys(values).filter((name) => !fields.has(name));
    // a link written by hand may lack the prefix
    unknown.push(...other.map((name) => (fields.has(name) ? `${name} (write p.${name})` : name)));
    await look();
    const told = [];
    if (!known) told.push(`The link names an unknown profile: ${named}.`);
    if (unknown.length) told.push(`The link names unknown parameters: ${unknown.join(", ")}.`);
    if (told.length) say([...told, status.textContent].join(" "));
  }
  await listen();
});
