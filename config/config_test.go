package config

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The example has every key and says every default.
func TestExampleIsTheDefault(t *testing.T) {
	c, err := Parse(Example)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Check(); err != nil {
		t.Fatal(err)
	}
	want := Default()
	if d := cmp.Diff(fmt.Sprintf("%+v", want), fmt.Sprintf("%+v", c)); d != "" {
		t.Errorf("the example does not say the defaults (-default +example):\n%s", d)
	}
	for _, key := range keys(reflect.TypeFor[Config]()) {
		if !strings.Contains(string(Example), key+":") {
			t.Errorf("the example does not have the key %s", key)
		}
	}
}

func keys(t reflect.Type) (out []string) {
	switch t.Kind() {
	case reflect.Slice, reflect.Pointer:
		return keys(t.Elem())
	case reflect.Struct:
		for i := range t.NumField() {
			if k := t.Field(i).Tag.Get("yaml"); k != "" && k != "-" {
				out = append(append(out, k), keys(t.Field(i).Type)...)
			}
		}
	}
	return out
}

// Every file of testdata is wrong; its first line is a comment with words that the error has to say.
func TestWrongFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/*.bad.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no wrong files", err)
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			first, _, _ := strings.Cut(string(b), "\n")
			c, err := Parse(b)
			if err == nil {
				err = c.Check()
			}
			if err == nil {
				t.Fatal("no error")
			}
			for _, w := range strings.Split(strings.TrimPrefix(first, "# "), " | ") {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("the error does not say %q:\n%v", w, err)
				}
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error tells a secret: %v", err)
			}
		})
	}
}

func TestSecretsAreNeverShown(t *testing.T) {
	t.Setenv("PACS_PASSWORD", "hunter2-from-the-environment")
	c, err := Parse([]byte("jobs:\n  redis: redis://:hunter2-in-the-url@127.0.0.1:6379/0\narchive: {s3: {access_key: a, secret_key: hunter2-of-s3}}\ndestinations:\n  - {name: a, url: 'http://h/d', user: u, password: 'env:PACS_PASSWORD'}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Destinations[0].Password.Reveal(); got != "hunter2-from-the-environment" {
		t.Errorf("password %q", got)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if s := fmt.Sprintf(verb, c); strings.Contains(s, "hunter2") {
			t.Errorf("%s shows a secret: %s", verb, s)
		}
	}
}
