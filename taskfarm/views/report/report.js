"use strict"
const facts = JSON.parse(document.getElementById("facts").textContent)
const linked = document.querySelector(".linked")

function duration(ms) {
  const [scale, unit] = [[3.6e6, "h"], [6e4, "min"], [1e3, "s"], [1, "ms"], [1e-3, "\u00b5s"]]
    .find(([scale, unit]) => ms >= (unit === "h" || unit === "min" ? 10 : 1) * scale) || [1e-6, "ns"]
  return `${Number((ms / scale).toPrecision(4)).toLocaleString("en")} ${unit}`
}

const count = (value) => value.toLocaleString("en")

const percent = (share) => `${Math.round(100 * share)} %`

const place = (row) => {
  const lane = facts.lanes[row], first = lane * facts.ranks_per_lane
  const last = Math.min(facts.last, first + facts.ranks_per_lane - 1)
  const ranks = last > first ? `ranks ${first} to ${last}` : `rank ${first}`
  return facts.hosts[row] ? `${ranks} on ${facts.hosts[row]}` : ranks
}

// Names come from users, so they are set as text, never as HTML.
function tooltip(title, colour, lines) {
  const box = document.createElement("div")
  const head = box.appendChild(document.createElement("b"))
  head.textContent = title
  box.style.cssText = `font: 13px/1.45 system-ui, sans-serif; max-width: 340px; overflow-wrap: anywhere; padding: 0 4px;` +
    (colour ? `border-left: 4px solid ${colour}; padding-left: 8px;` : "")
  for (const line of lines) {
    box.appendChild(document.createElement("div")).textContent = line
  }
  // The library's tooltip is white and inherits no style; the box is put into it a moment later.
  const dress = () => {
    const host = box.getRootNode().host
    if (host) host.style.cssText += "background: var(--paper); color: var(--ink); border-color: var(--line); opacity: 1; box-shadow: 0 2px 10px #0005;"
  }
  queueMicrotask(dress)
  requestAnimationFrame(dress)
  return box
}

const row = (ds, vars) => (name) => ds.get_column(name)[vars.index]

let covered = ""

const tooltips = {
  losses(ds, vars) {
    const value = row(ds, vars)
    covered = `${vars.sx} ${vars.sy}`
    return tooltip(`rank ${value("worker")} was lost`, null, [value("why"), `at ${duration(value("time"))}`])
  },
  parts(ds, vars) {
    const value = row(ds, vars), calls = value("count"), name = value("name")
    covered = `${vars.sx} ${vars.sy}`
    const time = duration(1e3 * value("seconds"))
    const lines = [
      calls === 1 ? `task ${value("first")}` : `tasks ${value("first")} to ${value("first") + calls - 1}, ${count(calls)} together`,
      calls === 1 ? `took ${time}` : `took ${time}, each ${duration(1e3 * value("seconds") / calls)}`,
      `started at ${duration(value("left"))}`,
      place(Math.round(value("middle") + (value("height") - 0.8) / 2)).replace(/ranks? \d+( to \d+)?/, `rank ${value("worker")}`),
    ]
    if (value("ranks") > 1) lines.push(`on ${count(value("ranks"))} ranks together`)
    if (value("attempt") > 1) lines.push(`attempt ${value("attempt")}`)
    if (value("failed")) lines.push(calls === 1 ? "failed" : `${count(value("failed"))} failed`)
    if (value("retried")) lines.push(calls === 1 ? "failed, then retried" : `${count(value("retried"))} retried`)
    return tooltip(facts.names[name], facts.colours[name], lines)
  },
  cells(ds, vars) {
    const image = ds.get_column("image")[0]
    const at = Math.floor(vars.x / facts.width), lane = Math.round(vars.y)
    const code = at < image.shape[1] ? image[lane * image.shape[1] + at] : 0
    // The exact bar on top has more details.
    if (!code || covered === `${vars.sx} ${vars.sy}`) return null
    const share = ((code - 1) % facts.levels + 1) / facts.levels
    const {name, colour} = facts.legend[Math.min(Math.floor((code - 1) / facts.levels), facts.legend.length - 1)]
    const from = duration(at * facts.width), to = duration((at + 1) * facts.width)
    return tooltip(name, colour, [`busy for about ${percent(share)} of`, `${from} to ${to}`, place(lane)])
  },
  "busy steps"(ds, vars) {
    const value = row(ds, vars)
    return tooltip(`${percent(value("value"))} busy`, null, [`${duration(value("left"))} to ${duration(value("right"))}`])
  },
  "ends steps"(ds, vars) {
    const value = row(ds, vars), failed = value("failed")
    const lines = [`${count(value("tasks"))} tasks`, `${duration(value("left"))} to ${duration(value("right"))}`]
    if (failed) lines.splice(1, 0, `${count(failed)} failed`)
    return tooltip(`${count(Number(value("value").toPrecision(3)))} tasks/s`, null, lines)
  },
  classes(ds, vars) {
    const value = row(ds, vars)
    return tooltip(`${count(value("count"))} calls`, value("colour"), [`${duration(1e3 * value("left"))} to ${duration(1e3 * value("right"))}`])
  },
}

const LIGHT = {paper: "#ffffff", ink: "#1b1f24", soft: "#57606a", line: "#d9dde3", panel: "#f0f2f5", bad: "#c01c28"}
const DARK = {paper: "#111418", ink: "#e6e9ee", soft: "#a3acb8", line: "#343b45", panel: "#1a1f25", bad: "#ff8080"}
const dark = matchMedia("(prefers-color-scheme: dark)")

function paint(views, colours) {
  for (const view of views) {
    const figure = view.model
    for (const axis of [...figure.left, ...figure.below, ...figure.right]) {
      axis.setv({major_label_text_color: colours.soft, axis_label_text_color: colours.soft})
    }
    for (const part of figure.center) {
      if (part.type === "Grid") part.grid_line_color = colours.line
      if (part.type === "BoxAnnotation" || part.name === "band") part.setv({fill_color: colours.panel, fill_alpha: 1, line_color: null})
      if (part.name === "label") part.text_color = colours.ink
    }
    for (const renderer of figure.renderers) {
      const glyph = renderer.glyph
      if (glyph.type === "Scatter") glyph.setv({line_color: colours.bad, fill_color: colours.paper})
    }
  }
}

async function show() {
  const documents = JSON.parse(document.getElementById("document").textContent)
  const managers = await Bokeh.embed.embed_items(documents, [facts.item])
  const report = Bokeh.documents[0]
  for (const [name, render] of Object.entries(tooltips)) {
    const hover = report.get_model_by_name(name)
    if (hover !== null) hover.tooltips = render
  }
  const views = managers.flatMap((manager) => [...manager]).filter((view) => report.roots().includes(view.model))
  const theme = () => paint(views, dark.matches ? DARK : LIGHT)
  theme()
  dark.addEventListener("change", theme)
  // A page is narrower than the window, and printing does not wait for a redraw, so it uses copies that scale.
  const copies = []
  addEventListener("beforeprint", () => {
    paint(views, LIGHT)
    for (const view of views) {
      view.paint()
      const copy = view.export("png").canvas
      copy.className = "copy"
      document.getElementById(view.model.name).append(copy)
      copies.push(copy)
    }
  })
  addEventListener("afterprint", () => {
    for (const copy of copies.splice(0)) copy.remove()
    theme()
  })
  // A finger scrolls the page; the buttons and two fingers zoom.
  if (matchMedia("(pointer: coarse)").matches) {
    for (const {model} of views) if (model.toolbar.active_drag !== "auto") model.toolbar.active_drag.active = false
  }
  const hosts = report.get_model_by_name("hosts")
  const fit = () => {
    if (hosts === null) return
    hosts.visible = linked.clientWidth > 640
    const room = hosts.visible ? 24 + 7 * Math.min(16, Math.max(...facts.hosts.map((host) => host.length))) : 8
    for (const name of ["lanes", "busy", "rank0", "ends"]) report.get_model_by_name(name).min_border_right = room
  }
  fit()
  addEventListener("resize", fit)
  steer(report.get_model_by_name("time"), report.get_model_by_name("lanes").y_range)
  document.documentElement.dataset.ready = "yes"
}

function steer(time, rows) {
  const [begin, end] = [time.start, time.end], [bottom, top] = [rows.start, rows.end]
  const move = (start, length) => {
    length = Math.min(end - begin, Math.max(length, 1e-3))
    start = Math.max(begin, Math.min(start, end - length))
    time.setv({start, end: start + length})
  }
  const views = {
    left: () => move(time.start - (time.end - time.start) / 4, time.end - time.start),
    right: () => move(time.start + (time.end - time.start) / 4, time.end - time.start),
    in: () => move(time.start + (time.end - time.start) / 4, (time.end - time.start) / 2),
    out: () => move(time.start - (time.end - time.start) / 2, 2 * (time.end - time.start)),
    reset: () => { move(begin, end - begin); rows.setv({start: bottom, end: top}) },
  }
  for (const button of document.querySelectorAll("[data-view]")) {
    button.addEventListener("click", views[button.dataset.view])
  }
  const keys = {ArrowLeft: "left", ArrowRight: "right", "+": "in", "=": "in", "-": "out", 0: "reset"}
  linked.addEventListener("keydown", (event) => {
    const view = views[keys[event.key]]
    if (!view || event.ctrlKey || event.metaKey || event.altKey) return
    event.preventDefault()
    view()
  })
  // Without a key held down, the wheel scrolls the page.
  linked.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) event.stopPropagation()
  }, {capture: true, passive: true})
}

show()
