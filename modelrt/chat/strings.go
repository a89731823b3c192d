package chat

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// pythonSpace is what str.strip and str.split take for white space.
func pythonSpace(r rune) bool { return unicode.IsSpace(r) || r >= 0x1C && r <= 0x1F }

// stripped takes white space, or the characters that are given, off the ends.
func stripped(e *run, c call, left, right bool) value {
	s := c.of.(string)
	out := pythonSpace
	if chars := c.arg(0, "chars", nil); chars != nil {
		set, ok := chars.(string)
		if !ok {
			e.fail(c.line, "%s of what is no string", c.name)
		}
		e.step(len(set) / 16)
		out = func(r rune) bool { return strings.ContainsRune(set, r) }
	}
	if left {
		s = strings.TrimLeftFunc(s, out)
	}
	if right {
		s = strings.TrimRightFunc(s, out)
	}
	return s
}

func texts(e *run, parts []string) value {
	e.make(16 * len(parts))
	l := &list{items: make([]value, len(parts))}
	for i, p := range parts {
		l.items[i] = p
	}
	return l
}

func splitText(e *run, c call) value {
	s, sep, most := c.of.(string), c.arg(0, "sep", nil), c.int(e, 1, "maxsplit", -1)
	by, ok := sep.(string)
	switch {
	case sep == nil:
		var parts []string
		rest := strings.TrimLeftFunc(s, pythonSpace)
		for rest != "" {
			end := strings.IndexFunc(rest, pythonSpace)
			if end < 0 || most >= 0 && int64(len(parts)) == most {
				parts = append(parts, strings.TrimRightFunc(rest, pythonSpace))
				break
			}
			parts = append(parts, rest[:end])
			rest = strings.TrimLeftFunc(rest[end:], pythonSpace)
		}
		return texts(e, parts)
	case !ok || by == "":
		e.fail(c.line, "split by nothing, or by what is no string")
	case most >= 0 && most < int64(len(s)):
		if c.name == "rsplit" {
			return texts(e, splitLast(s, by, int(most)))
		}
		return texts(e, strings.SplitN(s, by, int(most)+1))
	}
	return texts(e, strings.Split(s, by))
}

func splitLast(s, by string, most int) []string {
	var tail []string
	for ; most > 0; most-- {
		i := strings.LastIndex(s, by)
		if i < 0 {
			break
		}
		tail = append([]string{s[i+len(by):]}, tail...)
		s = s[:i]
	}
	return append([]string{s}, tail...)
}

// anyOf tests a string against one or a tuple of others.
func anyOf(test func(s, part string) bool) func(e *run, c call) value {
	return func(e *run, c call) value {
		switch parts := c.arg(0, "prefix", nil).(type) {
		case string:
			return test(c.of.(string), parts)
		case *list:
			for _, p := range parts.items {
				e.step(1)
				if s, ok := p.(string); ok && test(c.of.(string), s) {
					return true
				}
			}
			return false
		}
		e.fail(c.line, "%s of what is no string", c.name)
		return nil
	}
}

func all(s string, is func(r rune) bool) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return !is(r) })
}

func replaced(e *run, c call) value {
	s := e.str(c.of)
	old, by, count := c.text(e, 0, "old", ""), c.text(e, 1, "new", ""), c.arg(2, "count", nil)
	n := int64(-1)
	if count != nil {
		n = c.int(e, 2, "count", -1)
	}
	found := strings.Count(s, old)
	e.step(len(s) / 16)
	e.make(len(s) + found*max(len(by)-len(old), 0))
	return strings.Replace(s, old, by, int(max(min(n, int64(len(s)+2)), -1)))
}

// capital is str.capitalize.
func capital(s string) string {
	_, n := utf8.DecodeRuneInString(s)
	return strings.ToUpper(s[:n]) + strings.ToLower(s[n:])
}

// titled is str.title: a capital after everything that is no letter.
func titled(s string) string {
	inWord := false
	return strings.Map(func(r rune) rune {
		was := inWord
		inWord = unicode.IsLetter(r)
		if was {
			return unicode.ToLower(r)
		}
		return unicode.ToTitle(r)
	}, s)
}

var stringMethods map[string]func(e *run, c call) value

func init() {
	type f = func(e *run, c call) value
	changed := func(change func(string) string) f {
		return func(e *run, c call) value {
			e.make(2 * len(c.of.(string)))
			return change(c.of.(string))
		}
	}
	asked := func(is func(r rune) bool) f { return func(_ *run, c call) value { return all(c.of.(string), is) } }
	found := func(find func(s, part string) int) f {
		return func(e *run, c call) value {
			s := c.of.(string)
			i := find(s, c.text(e, 0, "sub", ""))
			if i < 0 {
				if strings.HasSuffix(c.name, "index") {
					e.fail(c.line, "%s of what is not in the string", c.name)
				}
				return int64(-1)
			}
			return int64(utf8.RuneCountInString(s[:i]))
		}
	}
	stringMethods = map[string]f{
		"strip":        func(e *run, c call) value { return stripped(e, c, true, true) },
		"lstrip":       func(e *run, c call) value { return stripped(e, c, true, false) },
		"rstrip":       func(e *run, c call) value { return stripped(e, c, false, true) },
		"split":        splitText,
		"rsplit":       splitText,
		"splitlines":   func(e *run, c call) value { return texts(e, lines(c.of.(string))) },
		"startswith":   anyOf(strings.HasPrefix),
		"endswith":     anyOf(strings.HasSuffix),
		"removeprefix": func(e *run, c call) value { return strings.TrimPrefix(c.of.(string), c.text(e, 0, "prefix", "")) },
		"removesuffix": func(e *run, c call) value { return strings.TrimSuffix(c.of.(string), c.text(e, 0, "suffix", "")) },
		"upper":        changed(strings.ToUpper), "lower": changed(strings.ToLower), "capitalize": changed(capital), "title": changed(titled),
		"find": found(strings.Index), "index": found(strings.Index), "rfind": found(strings.LastIndex), "rindex": found(strings.LastIndex),
		"count":   func(e *run, c call) value { return int64(strings.Count(c.of.(string), c.text(e, 0, "sub", ""))) },
		"replace": replaced,
		"join": func(e *run, c call) value {
			return joined(e, c, e.items(c.line, c.arg(0, "iterable", nil)), c.of.(string))
		},
		"isdigit": asked(unicode.IsDigit), "isalpha": asked(unicode.IsLetter), "isspace": asked(pythonSpace), "isnumeric": asked(unicode.IsNumber),
		"isalnum": asked(func(r rune) bool { return unicode.IsLetter(r) || unicode.IsNumber(r) }),
		"isupper": func(e *run, c call) value { return tests["upper"](e, c) },
		"islower": func(e *run, c call) value { return tests["lower"](e, c) },
	}
}

// lines is str.splitlines for the ends of line that texts have.
func lines(s string) []string {
	s = strings.NewReplacer("\r\n", "\n", "\r", "\n", "\v", "\n", "\f", "\n", "\x1c", "\n", "\x1d", "\n", "\x1e", "\n", "\u0085", "\n", "\u2028", "\n", "\u2029", "\n").Replace(s)
	if s == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(s, "\n"), "\n")
}

func joined(e *run, c call, items []value, by string) value {
	var b strings.Builder
	for i, v := range items {
		s := e.str(v)
		e.make(len(s) + len(by))
		if i > 0 {
			b.WriteString(by)
		}
		b.WriteString(s)
	}
	return b.String()
}
