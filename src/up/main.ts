// `weft up`: CA, configuration, ztunnel, and the waypoints among this machine's workloads, in one process; or, with --ca-address, the same
// without the CA, for a further machine of the same mesh.

import type { RoleMain, Runtime } from "../runtime/runtime.ts";
import type { Settings } from "../runtime/settings.ts";
import type { LocalWaypoints } from "../waypoint/local-waypoints.ts";
import { type NodeParts, runNode } from "../ztunnel/run-node.ts";

export const run: RoleMain = (settings, runtime) =>
  runNode(settings, runtime, async (isLocal, listeners) => {
    // The gRPC library is a tenth of the process's memory: it comes in only where certificates travel over a wire.
    if (settings.caAddress !== null) return withWaypoints(settings, runtime, await (await import("../ztunnel/grpc-source.ts")).grpcSource(settings));
    const { startCa } = await import("../ca/start-ca.ts");
    const ca = await startCa(settings, runtime, listeners);
    return withWaypoints(settings, runtime, {
      source: ca.authority.source(isLocal), crlPath: ca.authority.crlPath, setWritable: (writable) => ca.authority.setWritable(writable), handOver: ca.handOver, close: ca.close,
    });
  });

/** Machines without a waypoint do not load what makes one. */
function withWaypoints(settings: Settings, runtime: Runtime, parts: NodeParts): NodeParts {
  let waypoints: Promise<LocalWaypoints> | null = null;
  return {
    ...parts,
    beside: {
      apply(state) {
        if (waypoints === null && state.l7.waypoints.size === 0) return;
        waypoints ??= import("../waypoint/local-waypoints.ts").then((module) => new module.LocalWaypoints(settings, runtime, parts.source));
        // In the order in which the states came.
        void waypoints.then((running) => running.apply(state));
      },
      async snapshots() {
        return waypoints === null ? [] : await (await waypoints).snapshots();
      },
      async dump() {
        return waypoints === null ? {} : await (await waypoints).dump();
      },
      async clusters() {
        return waypoints === null ? [] : await (await waypoints).clusters();
      },
      async drain(deadlineMs) {
        if (waypoints !== null) await (await waypoints).drain(deadlineMs);
      },
    },
  };
}
