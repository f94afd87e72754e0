// What every connection of one data thread shares. Passed down whole inside the data path only; anything outside it gets less.

import type { Random } from "../core/ports.ts";
import type { MeshStore } from "../mesh/store.ts";
import type { Balancer } from "../policy/balance.ts";
import type { LocalWorkloads } from "./local-workloads.ts";
import type { NameResolver } from "../tunnel/name-resolver.ts";
import type { Reporter } from "./report.ts";
import type { TunnelContext } from "../tunnel/context.ts";

export interface DataPlaneContext extends TunnelContext {
  readonly random: Random;
  readonly store: MeshStore;
  readonly balancer: Balancer;
  readonly locals: LocalWorkloads;
  readonly reporter: Reporter;
  readonly names: NameResolver;
}
