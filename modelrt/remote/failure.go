package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"time"

	"chatxray/pipeline"
)

// failure is what went wrong with one attempt. What the endpoint has worded is never in it: it may quote what it was asked.
type failure struct {
	err    error         // wraps a sentinel of pipeline
	again  bool          // another attempt may do
	after  time.Duration // not before that, when the endpoint said so
	theirs bool          // the endpoint does not work: it counts for the breaker
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// away is a failure of the endpoint or of the way to it, which may pass.
func away(format string, a ...any) *failure {
	return &failure{err: fmt.Errorf("%w: %s", pipeline.ErrUnavailable, fmt.Sprintf(format, a...)), again: true, theirs: true}
}

// odd is an answer that is not of the interface. It does not get better by asking at once again.
func odd(format string, a ...any) *failure {
	f := away(format, a...)
	f.again = false
	return f
}

// wrote is about what the model wrote: it may not leave, and would not the next time.
func wrote(format string, a ...any) *failure {
	return &failure{err: fmt.Errorf("%w: %s", pipeline.ErrModel, fmt.Sprintf(format, a...))}
}

// late is the cause of a context whose stage took too long.
type late struct {
	what string
	d    time.Duration
}

func (l *late) Error() string { return fmt.Sprintf("%s within %v", l.what, l.d) }

// broken explains why a request or the reading of its answer ended. Who asked and went away is told so.
func broken(ctx context.Context, err error) error {
	l := (*late)(nil)
	if cause := context.Cause(ctx); errors.As(cause, &l) {
		return away("%v", l)
	} else if cause != nil {
		return cause
	}
	if u := (*url.Error)(nil); errors.As(err, &u) {
		err = u.Err // without the address, which may hold a proxy's password
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return away("the connection broke off")
	}
	return away("%v", err)
}

// word is what may be told of a code that an endpoint gives.
var word = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]{0,63}$`)

// refused explains an answer that is no success.
func refused(r *http.Response) *failure {
	code := errorCode(r)
	told := strconv.Itoa(r.StatusCode)
	if code != "" {
		told += ", " + code
	}
	invalid := func(what string) *failure {
		err := fmt.Errorf("%w: the endpoint refuses %s (%s)", pipeline.ErrInvalid, what, told)
		switch code {
		case "context_length_exceeded", "exceed_context_size_error":
			err = &pipeline.ChatError{Param: "messages", Code: "context_length_exceeded", Err: err}
		}
		return &failure{err: err}
	}
	switch r.StatusCode {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return &failure{err: fmt.Errorf("%w: the endpoint has no room (%s)", pipeline.ErrBusy, told), again: true, after: retryAfter(r)}
	case http.StatusUnauthorized, http.StatusForbidden:
		return odd("it does not take the key (%s); look at remote.key", told)
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		return odd("it has no such model or path (%s); look at remote.url and remote.model", told)
	case http.StatusRequestTimeout, http.StatusConflict, http.StatusTooEarly:
		return away("it answers %s", told)
	case http.StatusProxyAuthRequired:
		return odd("the proxy in between wants to know who asks (%s)", told)
	case http.StatusRequestEntityTooLarge:
		return invalid("a request of this size")
	}
	switch r.StatusCode / 100 {
	case 3:
		return odd("it redirects elsewhere (%s), which is not followed; look at remote.url", told)
	case 4:
		return invalid("the request")
	}
	return away("it answers %s", told)
}

// errorCode finds the code or the kind of an error of the interface.
func errorCode(r *http.Response) string {
	if !of(r, "application/json") {
		return ""
	}
	var said struct {
		Error struct{ Code, Type any }
	}
	b, err := io.ReadAll(io.LimitReader(r.Body, maxLine))
	if err != nil || json.Unmarshal(b, &said) != nil {
		return ""
	}
	for _, v := range []any{said.Error.Code, said.Error.Type} {
		if s, ok := v.(string); ok && word.MatchString(s) {
			return s
		}
	}
	return ""
}

// retryAfter is the header of that name (RFC 9110 section 10.2.3); a date is taken for no word.
func retryAfter(r *http.Response) time.Duration {
	n, err := strconv.Atoi(r.Header.Get("Retry-After"))
	if err != nil || n < 0 || n > 1<<20 {
		return 0
	}
	return time.Duration(n) * time.Second
}

// of tells whether an answer has a media type.
func of(r *http.Response, media string) bool {
	m, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return err == nil && m == media
}

// kind is the media type of an answer, for people.
func kind(r *http.Response) string {
	m, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || len(m) > 64 {
		return "something without a media type"
	}
	return m
}
