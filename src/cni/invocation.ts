// Whether this process was started as a CNI plugin: a container runtime sets CNI_COMMAND and gives no arguments. Apart from everything
// else, so that the plugin's path loads nothing that it does not need.

export function isPluginCall(args: readonly string[], environment: Readonly<Record<string, string | undefined>>): boolean {
  return args.length === 0 && (environment["CNI_COMMAND"] ?? "") !== "";
}
