// prom-client types its modules through its index only.

declare module "prom-client/lib/registry.js" {
  export { Registry as default } from "prom-client";
}
