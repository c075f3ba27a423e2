class GuardScope:
    @classmethod
    def build(cls, **k):
        o = cls(); o.__dict__.update(k); return o
