// `weft up`: CA, configuration and ztunnel in one process, for one machine; or, with --ca-address, for a further machine of the same mesh.

import type { RoleMain } from "../runtime/runtime.ts";
import { grpcSource } from "../ztunnel/grpc-source.ts";
import { runNode } from "../ztunnel/run-node.ts";

export const run: RoleMain = (settings, runtime) =>
  runNode(settings, runtime, async (isLocal) => {
    if (settings.caAddress !== null) return grpcSource(settings);
    // Loaded only where a CA runs: the gRPC library is a tenth of the process's memory.
    const { startCa } = await import("../ca/start-ca.ts");
    const ca = await startCa(settings, runtime);
    return { source: ca.authority.source(isLocal), crlPath: ca.authority.crlPath, close: ca.close };
  });
