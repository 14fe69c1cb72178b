"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const state = { episode: 0, step: 0, layer: 0, head: -1 };  // head -1: the mean of all
  let episode = data.episodes[0], columns = [];

  const decode = (text) => {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    return new Uint16Array(bytes.buffer);
  };
  const one = (layer, head, step, key) =>
    episode.values[((layer * episode.heads + head) * episode.length + step) * episode.window + key] / 65535;
  const weight = (step, key) => {
    if (state.head >= 0) return one(state.layer, state.head, step, key);
    let sum = 0;
    for (let head = 0; head < episode.heads; head++) sum += one(state.layer, head, step, key);
    return sum / episode.heads;
  };
  const stride = () => episode.strides[state.layer];
  // Steps of an episode count from its own beginning, places in the record from 0.
  const isThere = (step, key) => step + episode.num_past - key * stride() >= 0;
  const describe = (step, key) => {
    const place = step - key * stride();
    const known = place >= 0;
    return `step ${episode.start + place} · ${key * stride()} back from step ${episode.start + step} · ` +
      `weight ${weight(step, key).toFixed(3)}` +
      (known ? ` · action ${episode.actions[place]} · reward ${+episode.rewards[place].toFixed(4)}` : " · before this record");
  };
  const strongest = (count) => {
    const keys = [...Array(episode.window).keys()].filter((key) => isThere(state.step, key));
    return keys.sort((a, b) => weight(state.step, b) - weight(state.step, a)).slice(0, count);
  };

  const axis = (label) => ({
    label, stroke: () => css("--ink"), labelSize: 18, size: label === "step" ? 34 : 52,
    grid: { stroke: () => css("--line"), width: 1 }, ticks: { stroke: () => css("--line") },
    incrs: label === "weight" || label === "reward" ? undefined : [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000],
  });
  const make = (id, height, y, series, hooks, range) => {
    const plot = new uPlot({
      width: $(id).clientWidth, height, legend: { show: false },
      scales: { x: { time: false, range: range && range.x }, y: { range: range && range.y } },
      axes: [axis("step"), axis(y)], series: [{}, series], hooks,
      cursor: { drag: { x: false, y: false }, points: { show: false } },
    }, [[], []], $(id));
    new ResizeObserver(() => plot.setSize({ width: $(id).clientWidth, height })).observe($(id));
    return plot;
  };
  const mark = (u) => {  // the chosen step, in plots over the whole episode
    const x = u.valToPos(episode.start + state.step, "x", true);
    u.ctx.save();
    u.ctx.strokeStyle = css("--now");
    u.ctx.lineWidth = 2 * devicePixelRatio;
    u.ctx.strokeRect(x, u.bbox.top, 0, u.bbox.height);
    u.ctx.restore();
  };
  const say = (text) => { $("hover").textContent = text; };
  const whole = (low, high) => [low - 0.5, high + 0.5];
  const choosable = (u) => u.over.addEventListener("click", () => {
    go({ step: Math.round(u.posToVal(u.cursor.left, "x")) - episode.start });
  });

  // The weights of the chosen step, oldest key first.
  const weights = make("weights", 200, "weight", {
    paths: uPlot.paths.bars({ size: [0.8, 40] }), points: { show: false }, fill: () => css("--mark"), stroke: () => css("--mark"),
  }, {
    setCursor: [(u) => {
      const key = u.cursor.idx == null || u.cursor.left < 0 ? null : columns[u.cursor.idx];
      if (key != null) say(describe(state.step, key));
    }],
  }, { x: (u, low, high) => whole(low, high), y: () => [0, 1] });

  // All steps, with lags upwards.
  const canvas = document.createElement("canvas");
  const paint = () => {
    const width = Math.min(episode.length, 4096), height = episode.window;
    canvas.width = width;
    canvas.height = height;
    const context = canvas.getContext("2d"), image = context.createImageData(width, height);
    const stops = [[0, 0, 4], [81, 18, 124], [183, 55, 121], [252, 137, 97], [252, 253, 191]];
    for (let x = 0; x < width; x++) {
      // Columns of a long episode hold the largest weight of several steps.
      const first = Math.floor(x * episode.length / width);
      const last = Math.max(first + 1, Math.floor((x + 1) * episode.length / width));
      for (let key = 0; key < height; key++) {
        let most = 0;
        for (let step = first; step < last; step++) most = Math.max(most, weight(step, key));
        const shade = Math.sqrt(Math.min(1, most)) * (stops.length - 1);
        const low = Math.min(stops.length - 2, Math.floor(shade));
        const at = 4 * ((height - 1 - key) * width + x);
        for (let c = 0; c < 3; c++) image.data[at + c] = stops[low][c] + (stops[low + 1][c] - stops[low][c]) * (shade - low);
        image.data[at + 3] = 255;
      }
    }
    context.putImageData(image, 0, 0);
  };
  const map = make("map", 240, "steps back", { show: false }, {
    ready: [choosable],
    draw: [(u) => {
      u.ctx.save();
      u.ctx.imageSmoothingEnabled = false;
      u.ctx.drawImage(canvas, u.bbox.left, u.bbox.top, u.bbox.width, u.bbox.height);
      u.ctx.restore();
      mark(u);
    }],
    setCursor: [(u) => {
      if (u.cursor.left < 0) return;
      const step = Math.round(u.posToVal(u.cursor.left, "x")) - episode.start;
      const key = Math.round(u.posToVal(u.cursor.top, "y") / stride());
      if (step >= 0 && step < episode.length && key >= 0 && key < episode.window && isThere(step, key)) say(describe(step, key));
    }],
  }, {
    x: () => whole(episode.start, episode.start + episode.length - 1),
    y: () => [-0.5 * stride(), (episode.window - 0.5) * stride()],
  });
  const rewards = make("rewards", 150, "reward", { stroke: () => css("--gain"), width: 1.5, points: { show: false } }, {
    ready: [choosable], draw: [mark],
    setCursor: [(u) => {
      const place = u.cursor.idx;
      if (place != null && u.cursor.left >= 0) say(`step ${episode.start + place} · action ${episode.actions[place]} · reward ${+episode.rewards[place].toFixed(4)}`);
    }],
  }, { x: () => whole(episode.start, episode.start + episode.length - 1) });

  const frame = (place, caption) => {
    const figure = document.createElement("figure"), image = document.createElement("img"), text = document.createElement("figcaption");
    image.src = episode.frames[Math.floor(place / episode.frame_every)];
    image.alt = text.textContent = caption;
    figure.append(image, text);
    return figure;
  };
  const showFrames = (keys) => {
    $("pictures").hidden = !episode.frames.length;
    if (!episode.frames.length) return;
    const seen = keys.filter((key) => state.step - key * stride() >= 0);
    $("frames").replaceChildren(
      frame(state.step, `this step: ${episode.start + state.step}`),
      ...seen.map((key) => frame(state.step - key * stride(), `step ${episode.start + state.step - key * stride()}, weight ${weight(state.step, key).toFixed(3)}`)),
    );
  };
  const fill = (id, count, name, first) => {
    const options = [...Array(count).keys()].map((i) => new Option(name(i), i));
    $(id).replaceChildren(...first, ...options);
  };
  const openEpisode = () => {
    episode = data.episodes[state.episode];
    if (!episode.values) episode.values = decode(episode.weights);
    $("step").max = episode.length - 1;
    fill("layer", episode.strides.length, (i) => `${i + 1}`, []);
    fill("head", episode.heads, (i) => `${i + 1}`, [new Option("mean", -1)]);
  };
  const show = (all) => {
    if (all) {
      paint();
      const steps = episode.rewards.map((_, i) => episode.start + i);
      map.setData([steps, steps.map(() => null)]);
      rewards.setData([steps, episode.rewards]);
    }
    for (const id of ["episode", "layer", "head", "step"]) $(id).value = state[id];
    columns = [...Array(episode.window).keys()].filter((key) => isThere(state.step, key)).reverse();
    weights.setData([columns.map((key) => episode.start + state.step - key * stride()), columns.map((key) => weight(state.step, key))]);
    map.redraw();
    rewards.redraw();
    const top = strongest(3);
    const at = `${episode.start + state.step} of ${episode.start + episode.length - 1}`;
    $("at").textContent = at;
    $("step").setAttribute("aria-valuetext", `step ${at}`);
    say(`Most weight: ${describe(state.step, top[0])}`);
    showFrames(top);
  };
  const go = (changes) => {
    const before = { ...state };
    Object.assign(state, changes);
    if (state.episode !== before.episode) {
      openEpisode();
      state.step = 0;
    }
    state.step = Math.max(0, Math.min(episode.length - 1, state.step));
    show(["episode", "layer", "head"].some((name) => state[name] !== before[name]));
  };

  fill("episode", data.episodes.length, (i) => data.episodes[i].name, []);
  openEpisode();
  show(true);
  $("controls").addEventListener("submit", (event) => event.preventDefault());
  for (const id of ["episode", "layer", "head", "step"]) $(id).addEventListener("input", () => go({ [id]: +$(id).value }));
  const next = { e: ["episode", () => data.episodes.length, 0], l: ["layer", () => episode.strides.length, 0], h: ["head", () => episode.heads + 1, 1] };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (next[event.key] && event.target.tagName !== "SELECT") {
      const [name, count, shift] = next[event.key];
      go({ [name]: (state[name] + shift + 1) % count() - shift });
    } else if (!["SELECT", "INPUT"].includes(event.target.tagName)) {
      const step = { ArrowLeft: state.step - 1, ArrowRight: state.step + 1, Home: 0, End: episode.length - 1 }[event.key];
      if (step === undefined) return;
      go({ step });
    } else return;
    event.preventDefault();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { for (const plot of [weights, map, rewards]) plot.redraw(); });
})();
