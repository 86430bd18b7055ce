// What only the browser knows: light or dark, mouse or finger, and what a person copies. Runs once, when the page stands.
const dark = window.matchMedia("(prefers-color-scheme: dark)")
const colour = () => {
  const theme = themes[dark.matches ? "dark" : "light"]
  // for this browser alone: the server has nothing to do with colours
  const set = (part, colours) => part.setv(colours, {sync: false})
  for (const chart of charts) {
    for (const axis of [...chart.below, ...chart.left]) {
      set(axis, {major_label_text_color: theme.text})
    }
    for (const legend of chart.above) {
      if (legend.label_text_color !== undefined) set(legend, {label_text_color: theme.text})
    }
    for (const grid of chart.center) {
      if (grid.grid_line_color != null) set(grid, {grid_line_color: theme.grid})
    }
    for (const drawn of chart.renderers) {
      const wanted = theme[drawn.name]
      for (const glyph of [drawn.glyph, drawn.nonselection_glyph, drawn.muted_glyph]) {
        if (glyph?.fill_color !== undefined) set(glyph, {fill_color: wanted})
        if (glyph?.line_color !== undefined) set(glyph, {line_color: wanted})
      }
    }
  }
}
colour()
dark.addEventListener("change", colour)

if (window.matchMedia("(pointer: fine)").matches) {
  for (const chart of charts) {
    chart.toolbar.active_drag = chart.toolbar.tools.find((tool) => tool.type == "BoxZoomTool")
  }
}

if (window.matchMedia("(max-width: 600px)").matches) {
  for (const chart of charts) {
    for (const axis of chart.below) axis.ticker.setv({desired_num_ticks: 3}, {sync: false})
  }
}

// who comes to the field of symbols, or has chosen one, types another: no need to remove the one before
const select = (event) => {
  const field = event.composedPath()[0]
  if (field instanceof HTMLInputElement && event.composedPath().some((part) => part.classList?.contains("symbol"))) {
    field.select()
  }
}
document.addEventListener("focusin", select)
document.addEventListener("keyup", (event) => { if (event.key == "Enter") select(event) })

document.addEventListener("click", (event) => {
  const button = event.composedPath()[0]
  if (!(button instanceof HTMLButtonElement) || button.dataset.copy == null) return
  const shown = button.textContent
  const said = (text) => { button.textContent = text; setTimeout(() => { button.textContent = shown }, 1500) }
  if (navigator.clipboard == null) {
    window.prompt("Copy this command", button.dataset.copy)
  } else {
    navigator.clipboard.writeText(button.dataset.copy).then(() => said("copied"), () => window.prompt("Copy this command", button.dataset.copy))
  }
})
