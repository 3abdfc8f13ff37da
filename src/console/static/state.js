// The state of the gateway and the permissions of the caller, as the page has read them last.

/** The page, as one object. The panels read it. */
export const state = {
  /** GetServerInfo. */
  info: undefined,
  /** GetStatus. Undefined without the permission. */
  status: undefined,
};

const GATEWAY = "GatewayService/";
const OPERATOR = "OperatorService/";
export const methods = {
  info: `${GATEWAY}GetServerInfo`,
  getChange: `${GATEWAY}GetChange`,
  listChanges: `${GATEWAY}ListChanges`,
  listDevices: `${GATEWAY}ListDevices`,
  watch: `${GATEWAY}WatchRequest`,
  status: `${OPERATOR}GetStatus`,
  pause: `${OPERATOR}PauseChanges`,
  resume: `${OPERATOR}ResumeChanges`,
  resetLockout: `${OPERATOR}ResetLockout`,
  listQuarantined: `${OPERATOR}ListQuarantinedCallbacks`,
  getQuarantined: `${OPERATOR}GetQuarantinedCallback`,
  replay: `${OPERATOR}ReplayQuarantinedCallbacks`,
  drop: `${OPERATOR}DropQuarantinedCallback`,
};

/** True if the caller has a permission on some account. */
export function may(permission) {
  return (state.info?.caller?.permissions ?? []).includes(permission);
}

/** True if the caller has a permission on all accounts. */
export function mayEverywhere(permission) {
  return (state.info?.caller?.permissionsOnAllAccounts ?? []).includes(permission);
}

/** True if the caller may see the state of the gateway. */
export function mayMonitor() {
  return mayEverywhere("monitor");
}

/** True if the caller may give commands. */
export function mayOperate() {
  return mayEverywhere("operate");
}
