package chat

// all runs statements in their scope.
func (e *run) all(body []stmt, s *scope) flow {
	for _, x := range body {
		e.step(1)
		if f := x.exec(e, s); f != flowNext {
			return f
		}
	}
	return flowNext
}

func (x textStmt) exec(e *run, _ *scope) flow {
	e.write(x.text)
	return flowNext
}

func (x outputStmt) exec(e *run, s *scope) flow {
	e.write(e.str(e.eval(x.of, s)))
	return flowNext
}

func (x ifStmt) exec(e *run, s *scope) flow {
	if truth(e.eval(x.test, s)) {
		return e.all(x.then, s)
	}
	return e.all(x.otherwise, s)
}

// loop is the variable of that name.
type loop struct {
	items []value
	at    int
	last  value // of changed()
	asked bool
}

func (x forStmt) exec(e *run, s *scope) flow {
	items := e.items(x.line, e.eval(x.over, s))
	if x.filter != nil {
		var kept []value
		for _, v := range items {
			e.step(1)
			in := s.inner()
			x.target.assign(e, in, v, x.line)
			if truth(e.eval(x.filter, in)) {
				e.make(16)
				kept = append(kept, v)
			}
		}
		items = kept
	}
	if len(items) == 0 {
		return e.all(x.otherwise, s.inner())
	}
	l := &loop{items: items}
	for i, v := range items {
		e.step(1)
		l.at = i
		in := s.inner()
		in.vars["loop"] = l
		x.target.assign(e, in, v, x.line)
		if e.all(x.body, in) == flowBreak {
			break
		}
	}
	return flowNext
}

func (t target) assign(e *run, s *scope, v value, line int) {
	if t.attr != "" {
		of, _ := s.get(t.names[0])
		n, ok := of.(*namespace)
		if !ok {
			e.fail(line, "%s is no namespace", t.names[0])
		}
		n.values[t.attr] = v
		return
	}
	if len(t.names) == 1 {
		s.vars[t.names[0]] = v
		return
	}
	items := e.items(line, v)
	if len(items) != len(t.names) {
		e.fail(line, "%d values for %d names", len(items), len(t.names))
	}
	for i, n := range t.names {
		s.vars[n] = items[i]
	}
}

func (x setStmt) exec(e *run, s *scope) flow {
	if x.to != nil {
		x.target.assign(e, s, e.eval(x.to, s), x.line)
		return flowNext
	}
	var v value = e.capture(func() { e.all(x.body, s.inner()) })
	if x.filter != nil {
		v = e.filter(x.filter, v, s)
	}
	x.target.assign(e, s, v, x.line)
	return flowNext
}

func (x filterStmt) exec(e *run, s *scope) flow {
	text := e.capture(func() { e.all(x.body, s.inner()) })
	e.write(e.str(e.filter(x.filter, text, s)))
	return flowNext
}

func (x withStmt) exec(e *run, s *scope) flow {
	in := s.inner()
	for i, t := range x.targets {
		t.assign(e, in, e.eval(x.values[i], s), x.line)
	}
	return e.all(x.body, in)
}

func (x blockStmt) exec(e *run, s *scope) flow { return e.all(x.body, s) }
func (x jumpStmt) exec(*run, *scope) flow      { return x.to }

func (x macroStmt) exec(e *run, s *scope) flow {
	s.vars[x.name] = function(func(e *run, line int, args []value, named map[string]value) value {
		defer e.deeper()()
		in := s.inner()
		if len(args) > len(x.params) {
			e.fail(line, "%s takes %d arguments", x.name, len(x.params))
		}
		used := 0
		for i, p := range x.params {
			v, ok := named[p]
			switch d := i - (len(x.params) - len(x.defaults)); {
			case i < len(args):
				v = args[i]
			case ok:
				used++
			case d >= 0:
				v = e.eval(x.defaults[d], in)
			default:
				v = undefined{p}
			}
			in.vars[p] = v
		}
		if used != len(named) {
			e.fail(line, "%s has no parameter of some name that it is called with", x.name)
		}
		return e.capture(func() { e.all(x.body, in) })
	})
	return flowNext
}
