package kernel

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"sync"
	"testing"

	ort "github.com/yalue/onnxruntime_go"
	"google.golang.org/protobuf/encoding/protowire"

	"chatxray/parts"
)

// loaded is where ONNX Runtime was loaded from.
var loaded = sync.OnceValues(func() (string, error) {
	path := os.Getenv("CHATXRAY_ONNXRUNTIME")
	if path == "" {
		var err error
		if path, err = parts.Path("onnxruntime"); err != nil {
			return "", err
		}
	}
	ort.SetSharedLibraryPath(path)
	return path, ort.InitializeEnvironment(ort.WithLogLevelFatal())
})

// value is an input or output of a node, or a constant where data is set.
type value struct {
	name  string
	shape []int64
	data  any // []float32, []uint8, []int32 or []int64
	fixed bool
}

func floatsOf(name string, data []float32, shape ...int64) value {
	return value{name, shape, data, false}
}
func fixed(v value) value { v.fixed = true; return v }

// absent is an input that is left out.
var absent = value{}

// node is a graph of one node.
type node struct {
	op, domain string
	attributes map[string]any // int64, float32 or string
	eight      bool           // activations of 8 bits
	in         []value
	out        []value // data is where the results go
}

func text(b []byte, field protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), s)
}
func number(b []byte, field protowire.Number, n int64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), uint64(n))
}
func message(b []byte, field protowire.Number, m []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), m)
}

// element is a TensorProto.DataType.
func element(data any) int64 {
	switch data.(type) {
	case []float32:
		return 1
	case []uint8:
		return 2
	case []int32:
		return 6
	}
	return 7
}

// model is the node as an ONNX file (onnx.proto, ModelProto).
func (n *node) model() []byte {
	var graph, op []byte
	border := func(field protowire.Number, v value) {
		var shape []byte
		for _, d := range v.shape {
			shape = message(shape, 1, number(nil, 1, d))
		}
		kind := message(number(nil, 1, element(v.data)), 2, shape)
		graph = message(graph, field, message(text(nil, 1, v.name), 2, message(nil, 1, kind)))
	}
	for _, v := range n.in {
		op = text(op, 1, v.name)
		switch {
		case v.name == "":
		case v.fixed:
			var tensor []byte
			for _, d := range v.shape {
				tensor = number(tensor, 1, d)
			}
			raw, err := binary.Append(nil, binary.LittleEndian, v.data)
			if err != nil {
				panic(err)
			}
			graph = message(graph, 5, message(text(number(tensor, 2, element(v.data)), 8, v.name), 9, raw))
		default:
			border(11, v)
		}
	}
	for _, v := range n.out {
		op = text(op, 2, v.name)
		border(12, v)
	}
	op = text(text(op, 4, n.op), 7, n.domain)
	for name, a := range n.attributes {
		m := text(nil, 1, name)
		switch a := a.(type) {
		case int64:
			m = number(number(m, 3, a), 20, 2)
		case float32:
			m = protowire.AppendFixed32(protowire.AppendTag(m, 2, protowire.Fixed32Type), math.Float32bits(a))
			m = number(m, 20, 1)
		}
		op = message(op, 5, m)
	}
	graph = text(message(graph, 1, op), 2, "test")
	b := number(nil, 1, 8)
	for _, o := range []struct {
		domain  string
		version int64
	}{{"", 17}, {"com.microsoft", 1}, {"chatxray", 1}} {
		b = message(b, 8, number(text(nil, 1, o.domain), 2, o.version))
	}
	return message(b, 7, graph)
}

// session is a node that ONNX Runtime has loaded, with its tensors.
type session struct {
	s       *ort.DynamicAdvancedSession
	in, out []ort.Value
}

func (n *node) load(t testing.TB, threads int) (*session, error) {
	t.Helper()
	path, err := loaded()
	if err != nil {
		t.Skipf("ONNX Runtime absent: run `make parts`, or set CHATXRAY_ONNXRUNTIME to its shared library (%v)", err)
	}
	o, err := ort.NewSessionOptions()
	if err != nil {
		t.Fatal(err)
	}
	defer o.Destroy()
	if err := o.SetIntraOpNumThreads(threads); err != nil {
		t.Fatal(err)
	}
	if err := o.AddSessionConfigEntry("session.intra_op.allow_spinning", "0"); err != nil { // as served by default
		t.Fatal(err)
	}
	if err := Register(o, path, n.eight); err != nil {
		t.Fatal(err)
	}
	s := &session{}
	var in, out []string
	for _, v := range n.in {
		if v.name != "" && !v.fixed {
			in, s.in = append(in, v.name), append(s.in, tensorOf(t, v))
		}
	}
	for _, v := range n.out {
		out, s.out = append(out, v.name), append(s.out, tensorOf(t, v))
	}
	if s.s, err = ort.NewDynamicAdvancedSessionWithONNXData(n.model(), in, out, o); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func tensorOf(t testing.TB, v value) ort.Value {
	t.Helper()
	var tensor ort.Value
	var err error
	shape := ort.NewShape(v.shape...)
	switch d := v.data.(type) {
	case []float32:
		tensor, err = ort.NewTensor(shape, d)
	case []uint8:
		tensor, err = ort.NewTensor(shape, d)
	case []int32:
		tensor, err = ort.NewTensor(shape, d)
	case []int64:
		tensor, err = ort.NewTensor(shape, d)
	default:
		err = fmt.Errorf("%s has %T", v.name, v.data)
	}
	if err != nil {
		t.Fatal(err)
	}
	return tensor
}

func (s *session) run() error { return s.s.Run(s.in, s.out) }

func (s *session) close() {
	if s.s != nil {
		s.s.Destroy()
	}
	for _, v := range append(s.in, s.out...) {
		v.Destroy()
	}
}

// run loads and runs a node.
func (n *node) run(t testing.TB) error {
	t.Helper()
	s, err := n.load(t, 2)
	if err != nil {
		return err
	}
	defer s.close()
	return s.run()
}
