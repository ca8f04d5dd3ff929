// The import directions of DESIGN.md ("Who may import whom"). `npx depcruise src`.

/** Lowest first: a layer may import its own files and those of the layers before it. */
const LAYERS = [
  ["errors", "^src/(errors|event-loop|tokenizer|random|half|quantise|quantise-k|dtype)\\.ts$"],
  ["kernel", "^src/kernel\\.ts$"],
  ["backend", "^src/backend\\.ts$"],
  ["tensor", "^src/(tensor|tape)\\.ts$"],
  ["ops", "^src/ops/"],
  ["model", "^src/model/"],
  ["formats, train, generate", "^src/(formats|train|generate)/"],
  ["flag", "^src/flag/"],
  ["eval", "^src/eval/"],
  ["cli", "^src/cli/"],
];

/** src/index.ts is the public API of all layers, and src/backends stands beside them. */
const ENTRIES = "^src/(index\\.ts$|backends/)";

const layers = LAYERS.map(([name, path], i) => ({
  name: `layer: ${name}`,
  comment: "A layer imports what is below it, never what is above. See DESIGN.md, Who may import whom.",
  severity: "error",
  from: { path },
  to: { path: LAYERS.slice(i + 1).map(([, above]) => above) },
}));

module.exports = {
  forbidden: [
    ...layers.filter(({ to }) => to.path.length > 0),
    {
      name: "layers name no backend",
      comment: "Below the command line, code takes a Backend; only who starts the program makes one.",
      severity: "error",
      from: { path: "^src/", pathNot: [ENTRIES, "^src/cli/"] },
      to: { path: "^src/(backends|generated)/" },
    },
    {
      name: "backends import only kernel, backend, errors, generated",
      severity: "error",
      from: { path: "^src/backends/" },
      to: { path: "^src/", pathNot: "^src/(backends/|generated/|(kernel|backend|errors)\\.ts$)" },
    },
    {
      name: "one backend does not import another",
      severity: "error",
      from: { path: "^src/backends/(wasm|webgpu)/" },
      to: { path: "^src/backends/", pathNot: "^src/backends/$1/" },
    },
    {
      name: "nothing imports the public API",
      severity: "error",
      from: { path: "^src/", pathNot: "^src/index\\.ts$" },
      to: { path: "^src/index\\.ts$" },
    },
    {
      name: "src imports no tests, benches, examples or scripts",
      severity: "error",
      from: { path: "^src/" },
      to: { path: "^(test|bench|examples|scripts|dist|build)/" },
    },
    {
      name: "no cycles",
      severity: "error",
      from: { path: "^src/" },
      // Types are gone when the code runs.
      to: { circular: true, viaOnly: { dependencyTypesNot: ["type-only"] } },
    },
  ],
  options: {
    doNotFollow: { path: "node_modules" },
    tsConfig: { fileName: "tsconfig.json" },
    // TypeScript 7 has no API for other tools yet; swc sees type-only imports too.
    parser: "swc",
    tsPreCompilationDeps: true,
    enhancedResolveOptions: { exportsFields: ["exports"], conditionNames: ["import", "types", "default"] },
  },
};
