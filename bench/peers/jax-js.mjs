import { serve } from "../../dist/cli/bench/kit.js";
import { prepareMatmul } from "./jax-js-matmul.mjs";
import { prepareTrain } from "./jax-js-train.mjs";
import { versionOf } from "./version.mjs";

await serve(async () => {
  // It looks at the page's navigator, which Node has only in part.
  Object.defineProperty(globalThis, "navigator", { value: { hardwareConcurrency: 1, userAgent: "Node" } });
  const jax = await import("@jax-js/jax");
  await jax.init("wasm");
  jax.defaultDevice("wasm");
  return {
    description: `${await versionOf("@jax-js/jax")}, wasm`,
    prepare: (benchCase) => (benchCase.bench === "train" ? prepareTrain : prepareMatmul)(jax, benchCase),
  };
});
