// `weft up`: CA, configuration and ztunnel in one process, for one machine; or, with --ca-address, for a further machine of the same mesh.

import type { RoleMain } from "../runtime/runtime.ts";
import { runNode } from "../ztunnel/run-node.ts";

export const run: RoleMain = (settings, runtime) =>
  runNode(settings, runtime, async (isLocal, listeners) => {
    // The gRPC library is a tenth of the process's memory: it comes in only where certificates travel over a wire.
    if (settings.caAddress !== null) return (await import("../ztunnel/grpc-source.ts")).grpcSource(settings);
    const { startCa } = await import("../ca/start-ca.ts");
    const ca = await startCa(settings, runtime, listeners);
    return {
      source: ca.authority.source(isLocal), crlPath: ca.authority.crlPath, setWritable: (writable) => ca.authority.setWritable(writable), handOver: ca.handOver, close: ca.close,
    };
  });
