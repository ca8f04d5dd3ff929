// The program of our own contender: `own.js OPTIONS`, the options of its backend as JSON.

import { type BackendOptions, createBackend } from "../../backends/create.js";
import { serve } from "./serve.js";
import { SUITES } from "./suites.js";

await serve(async () => {
  const backend = await createBackend(JSON.parse(process.argv[2] ?? "{}") as BackendOptions);
  return {
    description: backend.description,
    variant: backend.variant,
    prepare(benchCase) {
      const suite = Object.values(SUITES).find(({ cases }) =>
        cases.some(({ bench }) => bench === benchCase.bench),
      );
      if (!suite) throw new RangeError(`there is no bench '${benchCase.bench}'`);
      return suite.prepare(backend, benchCase);
    },
  };
});
