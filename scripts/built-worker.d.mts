import type { Plugin } from "vite";

export declare const builtWorker: Plugin;
