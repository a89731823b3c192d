package modelrt

import (
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
)

// Fields of onnx.proto that are written.
const (
	modelGraph       = 7
	graphNode        = 1
	graphInitializer = 5
	nodeAttribute    = 5
)

// rewrite copies a protobuf message; f may give another value to a length-delimited field.
func rewrite(b []byte, f func(field protowire.Number, v []byte) ([]byte, error)) ([]byte, error) {
	out := make([]byte, 0, len(b))
	for len(b) > 0 {
		field, wire, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		m := protowire.ConsumeFieldValue(field, wire, b[n:])
		if m < 0 {
			return nil, protowire.ParseError(m)
		}
		whole := b[:n+m]
		b = b[n+m:]
		if wire == protowire.BytesType {
			v, _ := protowire.ConsumeBytes(whole[n:])
			w, err := f(field, v)
			if err != nil {
				return nil, err
			}
			out = protowire.AppendTag(out, field, wire)
			out = protowire.AppendBytes(out, w)
			continue
		}
		out = append(out, whole...)
	}
	return out, nil
}

// rewriteGraph copies an ONNX model with other nodes and initializers.
func rewriteGraph(model []byte, node, initializer func([]byte) ([]byte, error)) ([]byte, error) {
	return rewrite(model, func(field protowire.Number, v []byte) ([]byte, error) {
		if field != modelGraph {
			return v, nil
		}
		return rewrite(v, func(field protowire.Number, v []byte) ([]byte, error) {
			switch field {
			case graphNode:
				return node(v)
			case graphInitializer:
				return initializer(v)
			}
			return v, nil
		})
	})
}

// packedNode is a node over a packed matrix, of this program's operators Linear and Embed.
type packedNode struct {
	kind    string
	inputs  []string
	outputs []string
	numbers map[string]uint64 // attributes
}

func parsePackedNode(b []byte) (n packedNode, err error) {
	n.numbers = map[string]uint64{}
	err = fields(b, func(field protowire.Number, v []byte, _ uint64) error {
		switch field {
		case 1:
			n.inputs = append(n.inputs, string(v))
		case 2:
			n.outputs = append(n.outputs, string(v))
		case 4:
			n.kind = string(v)
		case nodeAttribute:
			name, value, err := integerAttribute(v)
			n.numbers[name] = value
			return err
		}
		return nil
	})
	return n, err
}

func integerAttribute(b []byte) (name string, value uint64, err error) {
	err = fields(b, func(field protowire.Number, v []byte, n uint64) error {
		switch field {
		case 1:
			name = string(v)
		case 3:
			value = n
		}
		return nil
	})
	return name, value, err
}

// withForm copies a node with another value of its attribute form.
func withForm(node []byte, form int) ([]byte, error) {
	return rewrite(node, func(field protowire.Number, v []byte) ([]byte, error) {
		if field != nodeAttribute {
			return v, nil
		}
		if name, _, err := integerAttribute(v); err != nil || name != "form" {
			return v, err
		}
		a := protowire.AppendTag(nil, 1, protowire.BytesType)
		a = protowire.AppendString(a, "form")
		a = protowire.AppendTag(a, 3, protowire.VarintType)
		a = protowire.AppendVarint(a, uint64(form))
		a = protowire.AppendTag(a, 20, protowire.VarintType)
		return protowire.AppendVarint(a, 2), nil // AttributeProto.INT
	})
}

// initializer is a tensor of a graph: its bytes, or where they are in weights.bin.
type initializer struct {
	name    string
	raw     []byte
	outside *outsideData
}

func parseInitializer(b []byte) (t initializer, err error) {
	s := signature{}
	if err := s.initializer(b); err != nil {
		return t, err
	}
	if len(s.outside) == 1 {
		t.outside = &s.outside[0]
	}
	err = fields(b, func(field protowire.Number, v []byte, _ uint64) error {
		switch field {
		case 8:
			t.name = string(v)
		case 9:
			t.raw = v
		}
		return nil
	})
	return t, err
}

// outsideTensor is an initializer of bytes in weights.bin; dims are nil to keep those of the tensor that it stands for.
func outsideTensor(b []byte, dims []int64, offset, length int64) ([]byte, error) {
	var out []byte
	for rest := b; len(rest) > 0; {
		field, wire, n := protowire.ConsumeTag(rest)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		m := protowire.ConsumeFieldValue(field, wire, rest[n:])
		if m < 0 {
			return nil, protowire.ParseError(m)
		}
		switch {
		case field == 9 || field == 13 || field == 14 || field == 1 && dims != nil:
		default:
			out = append(out, rest[:n+m]...)
		}
		rest = rest[n+m:]
	}
	for _, d := range dims {
		out = protowire.AppendTag(out, 1, protowire.VarintType)
		out = protowire.AppendVarint(out, uint64(d))
	}
	for _, e := range [][2]string{{"location", weightsName}, {"offset", strconv.FormatInt(offset, 10)}, {"length", strconv.FormatInt(length, 10)}} {
		var entry []byte
		for i, s := range e {
			entry = protowire.AppendTag(entry, protowire.Number(i+1), protowire.BytesType)
			entry = protowire.AppendString(entry, s)
		}
		out = protowire.AppendTag(out, 13, protowire.BytesType)
		out = protowire.AppendBytes(out, entry)
	}
	out = protowire.AppendTag(out, 14, protowire.VarintType)
	return protowire.AppendVarint(out, 1), nil // TensorProto.EXTERNAL
}
