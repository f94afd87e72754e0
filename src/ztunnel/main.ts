// `weft ztunnel`: a node whose certificates come from a CA elsewhere.

import type { RoleMain } from "../runtime/runtime.ts";
import { grpcSource } from "./grpc-source.ts";
import { runNode } from "./run-node.ts";

export const run: RoleMain = (settings, runtime) => runNode(settings, runtime, () => grpcSource(settings));
