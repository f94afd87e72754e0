// `weft waypoint`: the requests of the services behind one Gateway, for clients that come without a tunnel.

import type { RoleMain } from "../runtime/runtime.ts";
import { runWaypoint } from "./run-waypoint.ts";

export const run: RoleMain = (settings, runtime) => runWaypoint(settings, runtime);
