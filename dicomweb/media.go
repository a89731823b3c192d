package dicomweb

import (
	"cmp"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// mediaType is a media type or media range as it stands in Content-Type or Accept. Names and type are in lower case, values as sent.
type mediaType struct {
	name   string // "multipart/related"
	params map[string]string
	q      float64     // 0..1; 1 where not given
	not    []mediaType // of an Accept header: what it names with q=0
}

// lostPlus gives a plus back that stands for a space where it is not percent-encoded.
var lostPlus = strings.NewReplacer("dicom json", "dicom+json", "dicom xml", "dicom+xml")

// accepted is what a client takes. The query parameter accept, which a link in a page can have, counts before the header (PS3.18 section
// 8.3.3.1).
func accepted(r *http.Request) []mediaType {
	accept := r.Header["Accept"]
	if strings.Contains(r.URL.RawQuery, "accept=") {
		switch v := r.URL.Query().Get("accept"); {
		case v == "":
		case strings.TrimSpace(v) == "":
			return nil // names nothing, where a header would not be there
		default:
			accept = []string{lostPlus.Replace(v)}
		}
	}
	return parseAccept(accept)
}

// parseMediaType reads what clients send rather than what RFC 9110 allows: parameter values that lack the quotes which their
// characters demand, quotes that swallow the next parameter (type="application/dicom; transfer-syntax=*"), quotes never closed.
// mime.ParseMediaType refuses these and loses the boundary.
func parseMediaType(s string) mediaType {
	fields := split(s, ';')
	m := mediaType{name: strings.ToLower(strings.TrimSpace(fields[0])), params: map[string]string{}, q: 1}
	m.take(fields[1:])
	if v, ok := m.params["q"]; ok {
		if q, err := strconv.ParseFloat(v, 64); err == nil && q >= 0 && q <= 1 {
			m.q = q
		}
	}
	return m
}

func (m *mediaType) take(fields []string) {
	for _, f := range fields {
		name, value, ok := strings.Cut(f, "=")
		if !ok {
			continue
		}
		name, value = strings.ToLower(strings.TrimSpace(name)), unquote(strings.TrimSpace(value))
		if name == "type" {
			if rest := strings.Split(value, ";"); len(rest) > 1 {
				value = strings.TrimSpace(rest[0])
				m.take(rest[1:])
			}
			value = strings.ToLower(value)
		}
		if _, twice := m.params[name]; !twice {
			m.params[name] = value
		}
	}
}

// parseAccept reads all Accept headers of a request, most wanted first. None means that everything is welcome.
func parseAccept(headers []string) []mediaType {
	var out []mediaType
	for _, h := range headers {
		for _, f := range split(h, ',') {
			if strings.TrimSpace(f) != "" {
				out = append(out, parseMediaType(f))
			}
		}
	}
	if len(out) == 0 {
		return []mediaType{{name: "*/*", params: map[string]string{}, q: 1}}
	}
	slices.SortStableFunc(out, func(a, b mediaType) int { return cmp.Compare(b.q, a.q) })
	first := slices.IndexFunc(out, func(m mediaType) bool { return m.q == 0 })
	if first > 0 {
		for i := range out[:first] {
			out[i].not = out[first:]
		}
	}
	return out
}

// split cuts at a separator outside double quotes.
func split(s string, sep byte) []string {
	var out []string
	start, quoted := 0, false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && quoted:
			i++
		case c == '"':
			quoted = !quoted
		case c == sep && !quoted:
			out = append(out, s[start:i])
			start = i + 1
		}
	}
	return append(out, s[start:])
}

// unquote takes double quotes and the backslashes inside them away.
func unquote(s string) string {
	if len(s) == 0 || s[0] != '"' {
		return s
	}
	var b strings.Builder
	for i := 1; i < len(s) && s[i] != '"'; i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// matches reports whether a media range takes in a media type without parameters.
func (m mediaType) matches(name string) bool { return m.q > 0 && m.covers(name) && !m.refuses(name) }

func (m mediaType) covers(name string) bool {
	major, ok := strings.CutSuffix(m.name, "/*")
	return m.wide() == everything || m.name == name || ok && strings.HasPrefix(name, major+"/")
}

// refuses reports whether a narrower range of the same header takes a media type out (RFC 9110 section 12.5.1).
func (m mediaType) refuses(name string) bool {
	return slices.ContainsFunc(m.not, func(n mediaType) bool { return n.wide() < m.wide() && n.covers(name) })
}

// everything is the width of */*.
const everything = 2

// wide is how wide a range is: 0 for one media type.
func (m mediaType) wide() int {
	switch {
	case m.name == "*/*" || m.name == "*":
		return everything
	case strings.HasSuffix(m.name, "/*"):
		return 1
	}
	return 0
}

func (m mediaType) multi() bool { return m.name == mediaMulti || m.name == "multipart/*" }

// inner is the media range that is wanted, and whether it is wanted in a multipart body.
func (m mediaType) inner() (kind mediaType, multi bool) {
	if !m.multi() {
		return m, false
	}
	return m.inside(), true
}

// inside is what a range takes in the parts of a multipart body; */* takes all in them.
func (m mediaType) inside() mediaType {
	kind := mediaType{name: cmp.Or(m.params["type"], "*/*"), params: m.params, q: m.q}
	for _, n := range m.not {
		switch {
		case n.multi() && n.params["type"] != "":
			kind.not = append(kind.not, n.inside())
		case n.wide() < m.wide() && n.covers(mediaMulti):
			kind.q = 0
		}
	}
	return kind
}

// maxBoundary is far above the 70 characters of RFC 2046, which Orthanc exceeds.
const maxBoundary = 1024

func (m mediaType) boundary() (string, error) {
	b := m.params["boundary"]
	switch {
	case b == "":
		return "", errors.New("the Content-Type has no boundary parameter")
	case len(b) > maxBoundary:
		return "", errors.New("the boundary is longer than 1024 characters")
	}
	return b, nil
}
