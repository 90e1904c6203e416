"use strict";
// Everything below reads the JSON that stands in the page. Names are hostile: text goes in as text, never as markup.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const [target, train] = [data.target, data.train];

  const make = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) {
      if (value === null || value === undefined) continue;
      if (key === "text") node.textContent = value;
      else if (value === false) continue;
      else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
      else node.setAttribute(key, value === true ? "" : value);
    }
    node.append(...children.filter((child) => child !== null && child !== undefined));
    return node;
  };
  const remember = (key, value) => {
    try {
      if (value === undefined) return localStorage.getItem(key);
      localStorage.setItem(key, value);
    } catch { /* A page from disk may have no storage. */ }
    return null;
  };
  const digits = (value, count = 3) => (value === null || value === undefined ? "" : value.toFixed(count).replace(/^-(0\.?0*)$/, "$1"));
  const signed = (value) => (value === null ? "" : (value > 0 ? "+" : "") + Number(value.toPrecision(3)));

  // Pictures ----------------------------------------------------------------------------------------------------
  const sheetOf = (kind, row) => data.sheets[kind === "target" ? "target" : "train" + row in data.sheets ? "train" + row : "train0"];
  const picture = (kind, place, size, row = 0) => {
    const sheet = sheetOf(kind, row);
    if (!sheet) return null;
    const [width, height] = sheet.image, [cellWidth, cellHeight] = sheet.cell;
    const scale = size / Math.max(width, height), within = place % sheet.per;
    const last = Math.floor(place / sheet.per) === sheet.urls.length - 1;
    const count = last ? ((kind === "target" ? target : train).ids.length - 1) % sheet.per + 1 : sheet.per;
    const across = Math.min(sheet.across, count), down = Math.ceil(count / sheet.across);
    const node = make("span", { class: "picture" + (Math.max(width, height) > 48 ? " smooth" : "") });
    Object.assign(node.style, {
      width: `${width * scale}px`, height: `${height * scale}px`,
      backgroundImage: `url("${sheet.urls[Math.floor(place / sheet.per)]}")`,
      backgroundSize: `${cellWidth * across * scale}px ${cellHeight * down * scale}px`,
      backgroundPosition: `${-(within % sheet.across) * cellWidth * scale}px ${-Math.floor(within / sheet.across) * cellHeight * scale}px`,
    });
    return node;
  };
  const className = (units, place) => (units.labels ? data.classes[units.labels[place]] ?? "" : "");
  const said = (units, place, weight) => {
    const parts = [units.ids[place]];
    if (units.labels) parts.push(`class ${className(units, place)}`);
    for (const [name, values] of Object.entries(units.columns)) parts.push(`${name} ${values[place]}`);
    if (weight !== undefined) parts.push(`weight ${signed(weight)}`);
    return parts.join(", ");
  };
  const cell = (kind, place, { weight, row = 0, size = 62, number = false } = {}) => {
    const units = kind === "target" ? target : train;
    // Of a weight of 0 neither: a direction has fewer units than are listed.
    const sign = !weight ? "" : weight > 0 ? " plus" : " minus";
    const drawn = picture(kind, place, size, row);
    const opens = kind === "target";
    const inside = [];
    const arrow = !weight ? "" : weight > 0 ? "▲ " : "▼ ";
    if (drawn) {
      inside.push(drawn, make("span", { text: arrow + ((units.texts && units.texts[place]) || className(units, place) || units.ids[place]) }));
      if (number) inside.push(make("span", { text: signed(weight) }));
    }
    else {
      const small = [units.texts ? units.ids[place] : "", className(units, place), weight === undefined ? "" : arrow + signed(weight)];
      inside.push(make("span", { text: units.texts ? units.texts[place] : units.ids[place] }));
      if (small.some(Boolean)) inside.push(make("small", { text: small.filter(Boolean).join(" · ") }));
    }
    return make(opens ? "button" : "div", {
      class: "cell" + (drawn ? (units.texts ? " both" : "") : " text") + sign + (opens ? "" : " still"), type: opens ? "button" : null,
      title: said(units, place, weight), "aria-label": said(units, place, weight), role: opens ? null : "img",
      onclick: opens ? () => show(place) : () => {},
    }, ...inside);
  };
  const strip = (cells) => make("div", { class: "strip" }, ...cells);
  const weighed = (list, row) => strip(list.map(([unit, weight]) => cell("train", unit, { weight, row })));

  // Intervals ---------------------------------------------------------------------------------------------------
  const fill = (node, at, low, high, from, to) => {
    const place = (value) => Math.min(100, Math.max(0, (100 * (value - from)) / (to - from || 1)));
    const zero = make("s"), line = make("i"), point = make("u");
    zero.style.left = `${place(from < 0 ? 0 : 1)}%`;
    line.style.left = `${place(low)}%`; line.style.width = `${Math.max(0.5, place(high) - place(low))}%`;
    point.style.left = `${place(at)}%`;
    node.append(zero, line, point);
    node.setAttribute("aria-hidden", "true");
    return node;
  };
  const ranges = [...document.querySelectorAll(".groups .range")];
  const least = Math.min(0.9, ...ranges.map((node) => Number(node.dataset.low)));
  const most = Math.max(1.02, ...ranges.map((node) => Number(node.dataset.high)));
  for (const node of ranges) fill(node, Number(node.dataset.at), Number(node.dataset.low), Number(node.dataset.high), Math.max(0, least) , most);

  // Directions --------------------------------------------------------------------------------------------------
  const largest = Math.max(1e-6, ...data.directions.flatMap((one) => (one.effects ? one.effects.flat().map(Math.abs) : [0])));
  const shares = (one) => (one.shares ? one.shares : one.explained.map((value) => `${digits(value, 2)} %`));
  const bars = (one) => {
    const grid = make("div", { class: "bars" });
    data.names.forEach((name, row) => {
      grid.append(make("span", { class: "name " + "ab"[row], text: name, title: name }));
      if (one.effects) {
        const [at, low, high] = one.effects[row];
        grid.append(fill(make("span", { class: "range " + "ab"[row] }), at, low, high, -largest, largest));
      } else grid.append(make("span"));
      const effect = one.effects ? `, strength ${digits(one.effects[row][0])} (${digits(one.effects[row][1])} to ${digits(one.effects[row][2])})` : "";
      grid.append(make("span", { class: "value", text: `${shares(one)[row]} of its datamodels${effect}` }));
    });
    return grid;
  };
  const caption = (end) => {
    const title = make("p", { class: "label", text: `Captions of the ${end.end} (AUROC on targets that did not choose them), by ${end.embedder}` });
    const sure = end.captions.filter((one) => one.beyond).slice(0, 8);
    if (!sure.length) return [title, make("p", { class: "note", text: "No caption is beyond chance." })];
    return [title, make("ul", { class: "captions" }, ...sure.map((one) => make("li", { title: `q ${one.q === null ? "unknown" : one.q.toPrecision(2)}`, text: `${one.text} ${digits(one.auroc, 2).replace(/^0/, "")}` })))];
  };
  const card = (one) => {
    const article = make("article", { class: `card of-${"ab"[one.row]}`, id: one.code, tabindex: "-1", "aria-label": `Direction ${one.code}` });
    const head = make("h3", { text: `${one.code}: ${one.about || (Math.max(0, share(one, one.row)) > 2 * Math.max(0, share(one, 1 - one.row)) ? "what " + data.names[one.row] + " uses and " + data.names[1 - one.row] + " uses less" : "weighed differently by the two")}` });
    if (data.measured) head.append(make("span", { class: "chip " + (one.beyond ? "yes" : "no"), text: one.beyond ? `beyond chance, ${one.rate}` : one.rate ? `within chance, ${one.rate}` : "not measured" }));
    article.append(head);
    if (data.measured && !one.energy) article.append(make("p", { class: "numbers", text: "Nothing tells this direction from noise with these runs." }));
    else article.append(bars(one));
    if (one.estimate !== null) article.append(make("p", { class: "numbers", text: `Difference ${signed(one.estimate)} (standard error ${digits(one.error)}) with both algorithms on one scale, so that it is not just that of the strengths. In sample it explains ${digits(one.explained[0], 2)} % of ${data.names[0]} and ${digits(one.explained[1], 2)} % of ${data.names[1]}.` }));
    if (one.annotation) article.append(make("p", { class: "numbers" }, "Goes with ", make("b", { text: one.annotation })));
    // Both ends by one embedder and one list of words; others are a click away.
    for (const end of one.captions.slice(0, 2)) article.append(...caption(end));
    if (one.captions.length > 2) article.append(make("details", {}, make("summary", { text: "Captions by other embedders or words" }), ...one.captions.slice(2).flatMap(caption)));
    const ends = one.ends.map((end) => {
      const of = end.of > end.members.length ? ` (${end.members.length} of ${end.of})` : "";
      const box = make("div", {}, make("p", { class: "label", text: `Targets at the ${end.title}${of}` }), strip(end.members.map((place) => cell("target", place))));
      if (end.random.length) box.append(make("p", { class: "label", text: `Random targets${target.labels ? " of the same classes" : ""}` }), strip(end.random.map((place) => cell("target", place))));
      return box;
    });
    article.append(make("div", { class: "rows" }, ...ends));
    article.append(make("p", { class: "label", text: `Heaviest training examples (▲ pull towards the top, ▼ towards the bottom)` }), weighed(one.heavy, one.row));
    if (one.influencers.length) {
      article.append(make("details", {}, make("summary", { text: `Training examples that move these targets most under ${data.names[one.row]}, compared with ${data.names[1 - one.row]}` }), strip(one.influencers.map(([unit]) => cell("train", unit, { row: one.row })))));
    }
    return article;
  };
  const words = (one) => [one.code, one.about, one.annotation, data.names[one.row],
    ...one.captions.flatMap((end) => end.captions.map((each) => each.text)),
    ...(target.labels ? one.ends[0].members.map((place) => className(target, place)) : [])].join(" ").toLowerCase();
  const sorters = {
    // Below a thousandth one is as sure as another: then those that take most more of their own algorithm come first.
    rank: (x, y) => Number(y.beyond) - Number(x.beyond) || Math.max(x.q ?? 2, 0.001) - Math.max(y.q ?? 2, 0.001) || (data.measured ? more(y) - more(x) : 0) || x.component - y.component || x.row - y.row,
    "rank-only": (x, y) => x.component - y.component || x.row - y.row,
    a: (x, y) => share(y, 0) - share(x, 0), b: (x, y) => share(y, 1) - share(x, 1),
    gap: (x, y) => Math.abs(share(y, 0) - share(y, 1)) - Math.abs(share(x, 0) - share(x, 1)),
  };
  const share = (one, row) => (one.energy ? one.energy[row] : one.explained[row]);
  const more = (one) => Math.max(0, share(one, one.row)) - Math.max(0, share(one, 1 - one.row));
  const value = (id, otherwise) => ($(id) ? $(id).value : otherwise);
  const draw = () => {
    const find = value("d-find", "").trim().toLowerCase(), of = value("d-of", ""), q = Number(value("d-q", 1));
    const kept = data.directions.filter((one) => (of === "" || String(one.row) === of) && (q >= 1 || (one.q !== null && one.q <= q)) && (!find || words(one).includes(find)))
      .sort(sorters[value("d-sort", "rank")]);
    const nodes = kept.map((one, place) => {
      if (data.measured ? one.beyond : place < 6) return card(one);
      const folded = make("details", { class: `folded of-${"ab"[one.row]}` }, make("summary", { text: `${one.code} ${one.about ? "(" + one.about + ") " : ""}${data.measured ? "within chance" + (one.rate ? ", " + one.rate : "") : ""}` }));
      // Drawn when it is opened: a page of a hundred directions would hold thousands of pictures.
      folded.addEventListener("toggle", () => { if (folded.open && folded.children.length === 1) folded.append(card(one)); });
      return folded;
    });
    $("cards").replaceChildren(...nodes);
    const beyond = kept.filter((one) => one.beyond).length;
    $("d-count").textContent = data.directions.length === 0 ? "No direction is longer than rounding makes it." : `${kept.length} of ${data.directions.length} directions${data.measured ? `, ${beyond} beyond chance` : ""}`;
  };
  for (const id of ["d-find", "d-of", "d-sort", "d-q"]) $(id)?.addEventListener("input", draw);
  $("direction-controls").addEventListener("submit", (event) => event.preventDefault());
  draw();

  // Targets -----------------------------------------------------------------------------------------------------
  const columns = [{ name: "target", get: (p) => target.ids[p] }];
  if (target.texts) columns.push({ name: "text", get: (p) => target.texts[p] });
  if (target.labels) columns.push({ name: "class", get: (p) => className(target, p) });
  if (target.similarity) columns.push({ name: "similarity", get: (p) => target.similarity[p], say: (p) => (target.similarity[p] === null ? "not known" : `${digits(target.similarity[p], 2)} ± ${digits(1.96 * target.error[p], 2)}`), number: true });
  columns.push({ name: "cosine of the fits", get: (p) => target.cosine[p], say: (p) => digits(target.cosine[p], 2), number: true });
  for (const [name, values] of Object.entries(target.columns)) columns.push({ name, get: (p) => values[p], number: values.some((v) => typeof v === "number") });
  const state = { by: columns.findIndex((one) => one.number), down: false, page: 0 };
  const PER = 25;
  let listed = [];
  const compare = (x, y) => {
    const [p, q] = [columns[state.by].get(x), columns[state.by].get(y)];
    if (p === null || q === null) return Number(p === null) - Number(q === null);
    const order = typeof p === "number" && typeof q === "number" ? p - q : String(p).localeCompare(String(q), undefined, { numeric: true });
    return (state.down ? -order : order) || x - y;
  };
  const list = () => {
    const find = value("t-find", "").trim().toLowerCase(), of = value("t-class", "");
    listed = target.ids.map((_, place) => place).filter((place) => (of === "" || String(target.labels[place]) === of)
      && (!find || columns.some((one) => String(one.get(place) ?? "").toLowerCase().includes(find)))).sort(compare);
    state.page = Math.min(state.page, Math.max(0, Math.ceil(listed.length / PER) - 1));
    rows();
  };
  const rows = () => {
    const start = state.page * PER, some = listed.slice(start, start + PER);
    $("t-table").tHead.replaceChildren(make("tr", {}, data.sheets.target ? make("th", { scope: "col" }, make("span", { class: "hidden", text: "picture" })) : null,
      ...columns.map((one, k) => make("th", { scope: "col", class: one.number ? "num" : null, "aria-sort": state.by === k ? (state.down ? "descending" : "ascending") : null },
        make("button", { type: "button", text: one.name, onclick: () => { state.down = state.by === k && !state.down; state.by = k; state.page = 0; list(); } })))));
    $("t-table").tBodies[0].replaceChildren(...some.map((place) => make("tr", { onclick: () => show(place) },
      data.sheets.target ? make("td", {}, picture("target", place, 36)) : null,
      ...columns.map((one, k) => (k === 0
        ? make("td", {}, make("button", { class: "open", type: "button", "data-place": place, text: target.ids[place], onclick: (event) => { event.stopPropagation(); show(place); } }))
        : make("td", { class: one.number ? "num" : null, title: target.texts && one.name === "text" ? target.texts[place] : null, text: one.say ? one.say(place) : one.get(place) ?? "" }))))));
    $("t-count").textContent = `${listed.length.toLocaleString("en")} of ${target.ids.length.toLocaleString("en")} targets`;
    $("t-page").textContent = listed.length ? `${start + 1} to ${start + some.length}` : "none";
    $("t-back").disabled = state.page === 0;
    $("t-on").disabled = start + PER >= listed.length;
  };
  const turn = (by) => { state.page += by; rows(); };
  $("t-back").addEventListener("click", () => turn(-1));
  $("t-on").addEventListener("click", () => turn(1));
  if ($("t-class")) data.classes.forEach((name, number) => $("t-class").append(make("option", { value: number, text: name })));
  for (const id of ["t-find", "t-class"]) $(id)?.addEventListener("input", () => { state.page = 0; list(); });
  $("target-controls").addEventListener("submit", (event) => event.preventDefault());
  const save = (name, kind, content) => {
    const link = make("a", { href: URL.createObjectURL(new Blob([content], { type: kind })), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };
  // A spreadsheet runs a cell that begins like a formula.
  const quoted = (text) => `"${String(text ?? "").replace(/^([=+\-@\t\r])(?![\d.]+$)/, "'$1").replaceAll('"', '""')}"`;
  $("t-csv").addEventListener("click", () => save("targets.csv", "text/csv", [columns.map((one) => quoted(one.name)).join(","),
    ...listed.map((place) => columns.map((one) => quoted(one.get(place))).join(","))].join("\n") + "\n"));
  list();

  // One target --------------------------------------------------------------------------------------------------
  const chunks = new Map();
  const waiting = new Map();
  globalThis.dmstoreChunk = (part) => {
    chunks.set(part.first, part.rows);
    for (const call of waiting.get(part.first) ?? []) call();
    waiting.delete(part.first);
  };
  if (data.influences.rows) chunks.set(0, data.influences.rows);
  const withDatamodel = (place, call) => {
    const { per, urls } = data.influences;
    const first = urls ? Math.floor(place / per) * per : 0;
    const ready = () => call(chunks.get(first)?.map((row) => row[place - first]) ?? null);
    if (chunks.has(first) || !urls) return ready();
    if (!waiting.has(first)) {
      waiting.set(first, []);
      document.head.append(make("script", { src: urls[first / per], onerror: () => { waiting.delete(first); call(undefined); } }));
    }
    waiting.get(first)?.push(ready);
    return undefined;
  };
  let open = null;
  const side = (row, flat) => {
    const box = make("div", {}, make("h3", { class: "ab"[row], text: data.names[row] }));
    const pairs = [];
    for (let k = 0; k < flat.length; k += 2) pairs.push([flat[k], flat[k + 1]]);
    for (const [title, kept] of [["Raise its output most", pairs.filter(([, w]) => w > 0)], ["Lower it most", pairs.filter(([, w]) => w < 0)]]) {
      box.append(make("p", { class: "label", text: title }), kept.length ? strip(kept.map(([unit, weight]) => cell("train", unit, { weight, row, number: true }))) : make("p", { class: "note", text: "No training example." }));
    }
    return box;
  };
  const show = (place) => {
    open = place;
    $("detail-title").textContent = `Target ${target.ids[place]}${target.labels ? ", class " + className(target, place) : ""}`;
    const facts = columns.slice(1).filter((one) => one.name !== "class" && one.name !== "text").map((one) => `${one.name} ${one.say ? one.say(place) : one.get(place) ?? "not known"}`);
    const body = [make("div", {}, picture("target", place, 128), target.texts ? make("blockquote", { text: target.texts[place] }) : null), make("p", { class: "numbers", text: facts.join(" · ") })];
    const inside = data.directions.filter((one) => one.ends.some((end) => end.members.includes(place)));
    if (inside.length) body.push(make("p", { class: "numbers" }, "In direction ", ...inside.flatMap((one, k) => [k ? ", " : "", make("a", { href: "#" + one.code, text: one.code, onclick: () => $("detail").close() })])));
    const two = make("div", { class: "two" });
    $("detail-body").replaceChildren(...body.filter(Boolean), two);
    withDatamodel(place, (both) => {
      if (open !== place) return;
      if (both) two.replaceChildren(side(0, both[0]), side(1, both[1]));
      else two.replaceChildren(make("p", { class: "note", text: both === undefined ? `The folder '${decodeURIComponent(data.influences.urls[0].split("/")[0])}' beside this page is missing: keep both together.` : "This page was made without datamodels." }));
    });
    if (!$("detail").open) $("detail").showModal();
    $("detail-title").focus();
  };
  const step = (by) => {
    const at = listed.indexOf(open);
    const next = at < 0 ? listed[0] : listed[at + by];
    if (next !== undefined) show(next);
  };
  $("detail-back").addEventListener("click", () => step(-1));
  $("detail-on").addEventListener("click", () => step(1));
  $("detail-close").addEventListener("click", () => $("detail").close());
  $("detail").addEventListener("click", (event) => { if (event.target === $("detail")) $("detail").close(); });

  // Figures -----------------------------------------------------------------------------------------------------
  const flat = (svg) => {
    const copy = svg.cloneNode(true), look = getComputedStyle(document.documentElement);
    const own = new XMLSerializer().serializeToString(copy).replace(/var\((--[a-z]+)\)/g, (_, name) => look.getPropertyValue(name).trim());
    const [, , width, height] = (svg.getAttribute("viewBox") ?? "0 0 400 300").split(/\s+/);
    const style = `<style>text { fill: ${look.getPropertyValue("--ink").trim()} }</style><rect width="100%" height="100%" fill="${look.getPropertyValue("--paper").trim()}"/>`;
    return { width: Number(width), height: Number(height), text: own.replace(/<svg([^>]*)>/, `<svg$1>${style}`).replace("<svg ", `<svg width="${width}pt" height="${height}pt" `) };
  };
  for (const figure of document.querySelectorAll("figure")) {
    const svg = figure.querySelector("svg"), name = figure.dataset.name;
    if (!svg) continue;
    const png = () => {
      const { width, height, text } = flat(svg), picture = new Image(), scale = 3;
      picture.onload = () => {
        const canvas = make("canvas", { width: width * scale, height: height * scale });
        canvas.getContext("2d").drawImage(picture, 0, 0, width * scale, height * scale);
        canvas.toBlob((blob) => save(`${name}.png`, "image/png", blob));
      };
      picture.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(text);
    };
    figure.append(make("div", { class: "save" }, make("button", { type: "button", text: "Save SVG", "aria-label": `Save ${name} as SVG`, onclick: () => save(`${name}.svg`, "image/svg+xml", flat(svg).text) }),
      make("button", { type: "button", text: "Save PNG", "aria-label": `Save ${name} as PNG`, onclick: png }),
      make("button", { type: "button", text: "Save data", "aria-label": `Save the data of ${name} as CSV`, onclick: () => save(`${name}.csv`, "text/csv", data.figures[name]) })));
  }

  // Theme and keys ----------------------------------------------------------------------------------------------
  const isDark = () => (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const theme = (name) => {
    if (name) document.documentElement.dataset.theme = name;
    $("theme").textContent = isDark() ? "Light" : "Dark";
  };
  const switchTheme = () => { const next = isDark() ? "light" : "dark"; theme(next); remember("dmstore-theme", next); };
  theme(remember("dmstore-theme"));
  $("theme").addEventListener("click", switchTheme);
  $("keys").addEventListener("click", () => $("help").showModal());
  let current = -1;
  const jump = (by) => {
    const all = [...$("cards").children];
    if (!all.length) return;
    current = Math.min(all.length - 1, Math.max(0, current + by));
    all[current].scrollIntoView({ block: "start" });
    (all[current].matches("details") ? all[current].firstChild : all[current]).focus({ preventScroll: true });
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
    if ($("detail").open) {
      if (event.key === "ArrowLeft") step(-1);
      else if (event.key === "ArrowRight") step(1);
      else return;
    } else if ($("help").open) return;
    else if (event.key === "/") $("t-find").focus();
    else if (event.key === "j") jump(1);
    else if (event.key === "k") jump(-1);
    else if (event.key === "d") switchTheme();
    else if (event.key === "?") $("help").showModal();
    else return;
    event.preventDefault();
  });
})();
