package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const goRun = `{"Action":"start","Package":"m/a"}
{"Action":"run","Package":"m/a","Test":"TestGood"}
{"Action":"output","Package":"m/a","Test":"TestGood","Output":"=== RUN   TestGood\n"}
{"Action":"output","Package":"m/a","Test":"TestGood","Output":"    a_test.go:9: quiet words\n"}
{"Action":"pass","Package":"m/a","Test":"TestGood"}
{"Action":"output","Package":"m/a","Test":"TestData","Output":"=== RUN   TestData\n"}
{"Action":"output","Package":"m/a","Test":"TestData","Output":"    a_test.go:12: ../shared absent: no films\n"}
{"Action":"output","Package":"m/a","Test":"TestData","Output":"--- SKIP: TestData (0.00s)\n"}
{"Action":"skip","Package":"m/a","Test":"TestData"}
{"Action":"output","Package":"m/a","Test":"TestAll/orthanc","Output":"        a_test.go:30: Orthanc is not installed\n"}
{"Action":"output","Package":"m/a","Test":"TestAll/orthanc","Output":"    --- SKIP: TestAll/orthanc (0.00s)\n"}
{"Action":"skip","Package":"m/a","Test":"TestAll/orthanc"}
{"Action":"output","Package":"m/a","Output":"PASS\n"}
{"Action":"output","Package":"m/a","Output":"ok  \tm/a\t0.1s\n"}
{"Action":"pass","Package":"m/a"}
{"Action":"output","Package":"m/none","Output":"?   \tm/none\t[no test files]\n"}
{"Action":"skip","Package":"m/none"}
`

const failing = `{"Action":"output","Package":"m/b","Test":"TestBad","Output":"    b_test.go:3: two is not three\n"}
{"Action":"fail","Package":"m/b","Test":"TestBad"}
{"Action":"output","Package":"m/b","Output":"FAIL\tm/b\t0.1s\n"}
{"Action":"fail","Package":"m/b"}
`

const junit = `<?xml version="1.0"?><testsuites><testsuite name="pytest">
<testcase classname="train.tests.test_a" name="test_ok"/>
<testcase classname="train.tests.test_a" name="test_gpu"><skipped type="pytest.skip" message="no GPU here">x.py:3</skipped></testcase>
</testsuite></testsuites>`

func TestFollow(t *testing.T) {
	for _, c := range []struct {
		name, in   string
		ok         bool
		says, hush []string
	}{
		{"all good", goRun, true, []string{"ok  \tm/a\t0.1s", "go: 1 passed, 0 failed, 2 skipped"}, []string{"quiet words", "PASS"}},
		{"one fails", goRun + failing, false, []string{"two is not three", "FAIL\tm/b", "1 passed, 1 failed"}, []string{"quiet words"}},
		{"does not compile", `{"ImportPath":"m/c","Action":"build-output","Output":"c.go:1: undefined: x\n"}` + "\n" + `{"ImportPath":"m/c","Action":"build-fail"}`, false, []string{"undefined: x"}, nil},
		{"panics", `{"Action":"output","Package":"m/d","Test":"TestP","Output":"panic: boom\n"}` + "\n" + `{"Action":"fail","Package":"m/d"}`, false, []string{"panic: boom"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			var keep, out strings.Builder
			ok, err := follow(strings.NewReader(c.in), &keep, &out)
			if ok != c.ok || err != nil || keep.String() != c.in {
				t.Errorf("ok %v, err %v, kept %d of %d bytes", ok, err, keep.Len(), len(c.in))
			}
			for _, s := range c.says {
				if !strings.Contains(out.String(), s) {
					t.Errorf("%q is missing in\n%s", s, out.String())
				}
			}
			for _, s := range c.hush {
				if strings.Contains(out.String(), s) {
					t.Errorf("%q is in\n%s", s, out.String())
				}
			}
		})
	}
}

func TestSkips(t *testing.T) {
	dir := t.TempDir()
	write := func(name, data string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
		return file
	}
	mixed, python := write("go.json", goRun), write("py.xml", junit)
	clean := write("clean.json", strings.ReplaceAll(goRun, "Orthanc is not installed", "needs a GPU"))
	for _, c := range []struct {
		args []string
		ok   bool
		says string
	}{
		{[]string{"skips", mixed, python}, true, "3 skipped tests"},
		{[]string{"skips", "-strict", mixed}, false, "SKIP! m/a TestAll/orthanc: Orthanc is not installed\n"},
		{[]string{"skips", "-strict", clean, python}, true, "SKIP  m/a TestData: ../shared absent: no films\n"},
		{[]string{"skips", "-strict", python}, true, "SKIP  train.tests.test_a test_gpu: no GPU here\n"},
	} {
		var out strings.Builder
		ok, err := run(c.args, nil, &out)
		if ok != c.ok || err != nil || !strings.Contains(out.String(), c.says) {
			t.Errorf("%v: ok %v, err %v, said\n%s", c.args[:len(c.args)-1], ok, err, out.String())
		}
	}
	if _, err := run([]string{"skips", filepath.Join(dir, "gone")}, nil, os.Stderr); err == nil {
		t.Error("a missing file is no error")
	}
}
