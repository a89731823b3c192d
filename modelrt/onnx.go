package modelrt

import (
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"chatxray/pipeline"
)

// signature is what a graph file says about its borders: enough to check it against a manifest without loading it.
type signature struct {
	inputs, outputs map[string]tensorType
	outside         []outsideData
	places          map[string]place // of LoRAs, by the product's name
}

// place is a product [k, n] that takes a LoRA: a node Linear whose LoRA is inputs of the graph.
type place struct{ k, n int64 }

// The prefixes of the inputs that a LoRA comes by; the product's name follows.
const (
	loraA = "lora_a:"
	loraB = "lora_b:"
)

// tensorType is the declared type of an input or output. A dimension is -1 where the graph leaves it open.
type tensorType struct {
	element int // ONNX TensorProto.DataType
	ranked  bool
	dims    []int64
}

// outsideData is an initializer whose bytes are in another file.
type outsideData struct {
	name, location string
	offset, length int64
}

// The element types that a bundle's graphs have at their borders (TensorProto.DataType of onnx.proto).
const (
	elementFloat32 = 1
	elementInt32   = 6
	elementInt64   = 7
)

const maxGraph = 1 << 31 // protobuf's own limit

// readSignature walks the protobuf of an ONNX file (onnx.proto, ModelProto) and keeps its borders.
func readSignature(path string) (*signature, error) {
	b, err := readBounded(path, maxGraph)
	if err != nil {
		return nil, err
	}
	return parseSignature(b)
}

func parseSignature(b []byte) (*signature, error) {
	s := &signature{inputs: map[string]tensorType{}, outputs: map[string]tensorType{}, places: map[string]place{}}
	graphs := 0
	err := fields(b, func(field protowire.Number, v []byte, _ uint64) error {
		if field != 7 { // ModelProto.graph
			return nil
		}
		graphs++
		return s.graph(v)
	})
	if err == nil && graphs != 1 {
		err = fmt.Errorf("%d graphs", graphs)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: no ONNX model: %v", pipeline.ErrInvalid, err)
	}
	return s, nil
}

func (s *signature) graph(b []byte) error {
	return fields(b, func(field protowire.Number, v []byte, _ uint64) error {
		switch field {
		case 1: // node
			return s.node(v)
		case 5: // initializer
			return s.initializer(v)
		case 11, 12: // input, output
			name, t, err := valueInfo(v)
			if field == 11 {
				s.inputs[name] = t
			} else {
				s.outputs[name] = t
			}
			return err
		}
		return nil
	})
}

// node keeps the place of a LoRA (NodeProto).
func (s *signature) node(b []byte) error {
	n, err := parsePackedNode(b)
	if err != nil || n.kind != "Linear" || len(n.inputs) < 8 {
		return err
	}
	a, isA := strings.CutPrefix(n.inputs[6], loraA)
	if b, isB := strings.CutPrefix(n.inputs[7], loraB); isA && isB && a == b {
		s.places[a] = place{int64(n.numbers["k"]), int64(n.numbers["n"])}
	}
	return nil
}

func (s *signature) initializer(b []byte) error {
	d := outsideData{length: -1}
	outside := false
	err := fields(b, func(field protowire.Number, v []byte, n uint64) error {
		switch field {
		case 8:
			d.name = string(v)
		case 14: // data_location: EXTERNAL is 1
			outside = n == 1
		case 13: // external_data: StringStringEntryProto
			var key, value string
			if err := fields(v, func(field protowire.Number, v []byte, _ uint64) error {
				switch field {
				case 1:
					key = string(v)
				case 2:
					value = string(v)
				}
				return nil
			}); err != nil {
				return err
			}
			var err error
			switch key {
			case "location":
				d.location = value
			case "offset":
				d.offset, err = strconv.ParseInt(value, 10, 64)
			case "length":
				d.length, err = strconv.ParseInt(value, 10, 64)
			}
			return err
		}
		return nil
	})
	if outside {
		s.outside = append(s.outside, d)
	}
	return err
}

func valueInfo(b []byte) (name string, t tensorType, err error) {
	err = fields(b, func(field protowire.Number, v []byte, _ uint64) error {
		switch field {
		case 1:
			name = string(v)
		case 2: // TypeProto
			return fields(v, func(field protowire.Number, v []byte, _ uint64) error {
				if field != 1 { // tensor_type
					return nil
				}
				return fields(v, t.tensor)
			})
		}
		return nil
	})
	return name, t, err
}

func (t *tensorType) tensor(field protowire.Number, v []byte, n uint64) error {
	switch field {
	case 1:
		t.element = int(n)
	case 2: // shape
		t.ranked = true
		return fields(v, func(field protowire.Number, v []byte, _ uint64) error {
			if field != 1 {
				return nil
			}
			dim := int64(-1)
			err := fields(v, func(field protowire.Number, _ []byte, n uint64) error {
				if field == 1 { // dim_value
					dim = int64(n)
				}
				return nil
			})
			t.dims = append(t.dims, dim)
			return err
		})
	}
	return nil
}

// fields calls f for each field of a protobuf message: bytes for length-delimited fields, the number for varints.
func fields(b []byte, f func(field protowire.Number, v []byte, n uint64) error) error {
	for len(b) > 0 {
		field, wire, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		var v []byte
		var number uint64
		switch wire {
		case protowire.BytesType:
			v, n = protowire.ConsumeBytes(b)
		case protowire.VarintType:
			number, n = protowire.ConsumeVarint(b)
		default:
			n = protowire.ConsumeFieldValue(field, wire, b)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if err := f(field, v, number); err != nil {
			return err
		}
	}
	return nil
}
