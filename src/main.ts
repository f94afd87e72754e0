#!/usr/bin/env bun
// Where the program begins. A container runtime that starts it as a CNI plugin, once for each pod, gets the plugin and nothing else
// loaded; everybody else gets the verbs.

import { isPluginCall } from "./cni/invocation.ts";

const args = process.argv.slice(2);
if (isPluginCall(args, process.env)) {
  const { runPlugin } = await import("./cni/plugin.ts");
  process.exit(runPlugin(process.env));
}
const { run } = await import("./program.ts");
process.exit(await run(args));
