// The engine's own thread in a page: computes what it is told to and waits, with its workers up, to be let go on.

import { compute } from "./scenario.mjs";

console.warn = (warning) => globalThis.postMessage({ warning });

globalThis.onmessage = async ({ data: { options, expected } }) => {
  const goOn = new Promise((resolve) => {
    globalThis.onmessage = resolve;
  });
  try {
    const result = await compute(options, expected, () => {
      globalThis.postMessage({ isUp: true });
      return goOn;
    });
    globalThis.postMessage({ result });
  } catch (error) {
    globalThis.postMessage({ error: String(error?.stack ?? error) });
  }
};
