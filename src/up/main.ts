// `weft up`: CA, configuration, ztunnel, and the waypoints among this machine's workloads, in one process; or, with --ca-address, the same
// without the CA, for a further machine of the same mesh.

import { ok } from "../core/result.ts";
import type { RoleMain, Runtime } from "../runtime/runtime.ts";
import type { Settings } from "../runtime/settings.ts";
import type { LocalWaypoints } from "../waypoint/local-waypoints.ts";
import { type NodeParts, type NodeSockets, runNode } from "../ztunnel/run-node.ts";

export const run: RoleMain = (settings, runtime) =>
  runNode(settings, runtime, async (isLocal, listeners, sockets) => {
    // HTTP/2 and messages take memory: they come in only where certificates travel over a wire.
    if (settings.caAddress !== null) return withWaypoints(settings, runtime, sockets, await (await import("../ztunnel/grpc-source.ts")).grpcSource(settings));
    const { startCa } = await import("../ca/start-ca.ts");
    const ca = await startCa(settings, runtime, listeners);
    return withWaypoints(settings, runtime, sockets, {
      source: ca.authority.source(isLocal), crlPath: ca.authority.crlPath, setWritable: (writable) => ca.authority.setWritable(writable), handOver: ca.handOver, close: ca.close,
    });
  });

/** Machines without a waypoint do not load what makes one. */
function withWaypoints(settings: Settings, runtime: Runtime, sockets: NodeSockets, parts: NodeParts): NodeParts {
  let waypoints: Promise<LocalWaypoints> | null = null;
  let loaded: LocalWaypoints | null = null;
  return {
    ...parts,
    beside: {
      apply(state) {
        if (waypoints === null && state.l7.waypoints.size === 0) return;
        waypoints ??= import("../waypoint/local-waypoints.ts").then((module) => (loaded = new module.LocalWaypoints({ settings, runtime, source: parts.source, ...sockets })));
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
      async settled() {
        return waypoints === null ? ok(undefined) : await (await waypoints).settled();
      },
      allAlive: () => loaded?.allAlive ?? true,
      collectGarbage: () => loaded?.collectGarbage(),
      offer: () => loaded?.offer() ?? [],
      thaw: () => loaded?.thaw(),
      hurry: (deadlineMs) => loaded?.hurry(deadlineMs),
      async drain(deadlineMs) {
        if (waypoints !== null) await (await waypoints).drain(deadlineMs);
      },
    },
  };
}
