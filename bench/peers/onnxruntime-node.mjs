import { serve } from "../../dist/cli/bench/kit.js";
import { prepareMatmul } from "./onnxruntime.mjs";

const { threads } = JSON.parse(process.argv[2]);

await serve(async () => {
  const { default: ort } = await import("onnxruntime-node");
  const options = { executionProviders: ["cpu"], intraOpNumThreads: threads, interOpNumThreads: 1 };
  return {
    description: `${ort.env.versions.node}, CPU`,
    prepare: (benchCase) => prepareMatmul(ort, benchCase, options),
  };
});
