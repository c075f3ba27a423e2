"""The descent through a parse tree, compiled: most of what a judgement that is not cached costs.

It only passes from node to node and asks the table; what a node means, the rules say (walk.py).
"""

from cpython.dict cimport PyDict_GetItem
from cpython.object cimport PyObject

from tenant_proxy.guard.nodes import LEAVES, LIST, NODE, SCALAR

cdef:
    frozenset _LEAVES = LEAVES
    object _SCALAR = SCALAR
    object _NODE = NODE
    object _LIST = LIST


cdef class ColumnRule:
    """The rule of a ColumnRef, of which a query may have hundreds: `c` and `t.c` name nothing but a column, where
    `c` is none of the `functions` that can be called so, or that the scope denies; `rest` judges all others.
    """

    cdef:
        frozenset functions
        object rest

    def __init__(self, functions, rest):
        self.functions = frozenset(functions)
        self.rest = rest

    cdef bint passes(self, dict body, frozenset denied) except -1:
        cdef:
            list fields = <list?> body["fields"]
            PyObject *named
        if len(fields) == 1:
            return True
        if len(fields) != 2:
            return False
        named = PyDict_GetItem(<dict?> fields[1], "String")
        if named == NULL:
            return True
        name = (<dict?> <object> named).get("sval")
        return name not in self.functions and (not denied or name not in denied)


def descend(w, dict table, str tag, dict body):
    """A node and all below it: of each its rule first, then its fields, unless the rule has dealt with them.

    `table` has a node's fields and rule.  What is not in it goes to `w.unknown`, which raises.
    """
    cdef:
        list tags = [tag]
        list bodies = [body]
        PyObject *found
        PyObject *kind
        tuple entry
        dict fields
        object rule, key, value, element
        frozenset denied = w.scope.denied_attributes
    while tags:
        tag = <str> tags.pop()
        body = <dict?> bodies.pop()
        found = PyDict_GetItem(table, tag)
        if found == NULL:
            if tag in _LEAVES:
                continue
            w.unknown(f"node {tag}")
        entry = <tuple> found
        rule = entry[1]
        if type(rule) is ColumnRule:
            if (<ColumnRule> rule).passes(body, denied):
                continue
            rule = (<ColumnRule> rule).rest
        if rule is not None and rule(w, body):
            continue
        fields = <dict> entry[0]
        for key, value in body.items():
            kind = PyDict_GetItem(fields, key)
            if kind == NULL:
                w.unknown(f"field {tag}.{key}")
            elif kind == <PyObject *> _SCALAR:
                pass
            elif kind == <PyObject *> _NODE:
                for tag_below, below in (<dict?> value).items():
                    tags.append(tag_below)
                    bodies.append(below)
            elif kind == <PyObject *> _LIST:
                for element in <list?> value:
                    for tag_below, below in (<dict?> element).items():
                        tags.append(tag_below)
                        bodies.append(below)
            else:
                tags.append(<object> kind)
                bodies.append(value)
