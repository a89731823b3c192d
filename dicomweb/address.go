package dicomweb

import (
	"net"
	"net/http"
	"strconv"
	"strings"
)

// base is the URL of the DICOMweb root as the client reaches it: the configured one, else from Forwarded (RFC 7239), X-Forwarded-Proto,
// -Host, -Port and -Prefix, else from the request itself.
func (s *server) base(r *http.Request) string {
	if s.BaseURL != "" {
		return strings.TrimRight(s.BaseURL, "/")
	}
	scheme, host, prefix := "http", withPort(r), ""
	if r.TLS != nil {
		scheme = "https"
	}
	first := func(name string) string {
		v, _, _ := strings.Cut(r.Header.Get(name), ",")
		return strings.TrimSpace(v)
	}
	proto, fhost := first("X-Forwarded-Proto"), first("X-Forwarded-Host")
	if port := first("X-Forwarded-Port"); isHost(fhost) && !hasPort(fhost) && isPort(port) && port != map[string]string{"http": "80", "https": "443"}[strings.ToLower(proto)] {
		fhost += ":" + port
	}
	for _, pair := range split(first("Forwarded"), ';') { // the standard one counts more
		name, value, _ := strings.Cut(pair, "=")
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "proto":
			proto = unquote(strings.TrimSpace(value))
		case "host":
			fhost = unquote(strings.TrimSpace(value))
		}
	}
	if p := strings.ToLower(proto); p == "http" || p == "https" {
		scheme = p
	}
	if isHost(fhost) {
		host = fhost
	}
	if p := strings.Trim(first("X-Forwarded-Prefix"), "/"); p != "" && isPath(p) {
		prefix = "/" + p
	}
	return scheme + "://" + host + prefix + Root
}

// withPort is the request's host. PyPI's dicomweb-client leaves the port out of it whatever the port is; where the host is the very
// address that the connection has come in at, so that no proxy with another port can stand between, the port is known.
func withPort(r *http.Request) string {
	local, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	if !ok || r.TLS == nil && local.Port == 80 || r.TLS != nil && local.Port == 443 {
		return r.Host
	}
	host := strings.TrimSuffix(strings.TrimPrefix(r.Host, "["), "]")
	if local.IP.Equal(net.ParseIP(host)) || strings.EqualFold(host, "localhost") && local.IP.IsLoopback() {
		return net.JoinHostPort(host, strconv.Itoa(local.Port))
	}
	return r.Host
}

const hostCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:[]"

func isHost(s string) bool { return s != "" && strings.Trim(s, hostCharacters) == "" }

func isPath(s string) bool { return strings.Trim(s, hostCharacters+"/~") == "" }

// hasPort tells whether a host has a port behind its name or bracketed address.
func hasPort(host string) bool {
	return strings.LastIndexByte(host, ':') > strings.LastIndexByte(host, ']')
}

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}
