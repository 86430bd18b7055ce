// The server was started again, or this machine slept: what was open there is gone. As soon as it answers, begin anew.
if (!window.waitsForServer) {
  window.waitsForServer = true
  const ask = () => {
    fetch("static/js/bokeh.min.js", {method: "HEAD", cache: "no-store"}).then(
      (answer) => { answer.ok ? location.reload() : setTimeout(ask, 2000) },
      () => setTimeout(ask, 2000),
    )
  }
  setTimeout(ask, 1000)
}
