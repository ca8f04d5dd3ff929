import { serve } from "../../dist/cli/bench/kit.js";
import { prepareMatmul } from "./onnxruntime.mjs";

await serve(async () => {
  const ort = await import("onnxruntime-web/wasm");
  // More need workers that it does not start in Node.
  ort.env.wasm.numThreads = 1;
  return {
    description: `${ort.env.versions.web}, wasm`,
    prepare: (benchCase) => prepareMatmul(ort, benchCase, { executionProviders: ["wasm"] }),
  };
});
