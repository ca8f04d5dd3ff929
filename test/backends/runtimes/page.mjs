// The page's side: functions that the test calls. The engine runs in a Worker, or on the page's own thread.

import { compute } from "./scenario.mjs";

let engine;

/** What the engine has warned of. */
globalThis.warnings = [];

/** The next message of the engine's thread that is no warning. */
function answer() {
  return new Promise((resolve) => {
    engine.onmessage = ({ data }) => {
      if (data.warning === undefined) resolve(data);
      else globalThis.warnings.push(data.warning);
    };
    engine.onerror = ({ message }) => resolve({ error: message });
  });
}

/** Starts the scenario in a Worker; resolves once it has computed and its threads are still up. */
globalThis.start = (options, expected) => {
  engine = new Worker(new URL("./engine.mjs", import.meta.url), { type: "module" });
  engine.postMessage({ options, expected });
  return answer();
};

/** Lets the engine be disposed of; resolves to its result. */
globalThis.finish = () => {
  engine.postMessage({});
  return answer();
};

globalThis.computeHere = compute;
