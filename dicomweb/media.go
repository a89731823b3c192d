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
	q      float64 // 0..1; 1 where not given
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
func (m mediaType) matches(name string) bool {
	if m.q == 0 {
		return false
	}
	if m.name == "*/*" || m.name == "*" || m.name == name {
		return true
	}
	major, ok := strings.CutSuffix(m.name, "/*")
	return ok && strings.HasPrefix(name, major+"/")
}

// inner is the media range that is wanted, and whether it is wanted in a multipart body.
func (m mediaType) inner() (kind mediaType, multi bool) {
	if m.name != mediaMulti && m.name != "multipart/*" {
		return m, false
	}
	return mediaType{cmp.Or(m.params["type"], "*/*"), m.params, m.q}, true
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
