package modelrt

import (
	"context"
	"fmt"
	"strconv"

	ort "github.com/yalue/onnxruntime_go"
	"google.golang.org/protobuf/encoding/protowire"

	"chatxray/modelrt/kernel"
	"chatxray/pipeline"
)

// loadCopier loads a graph that copies n tensors of rank 4: ONNX Runtime has no call that copies memory of a device.
func (r *Runtime) loadCopier(n int, e kernel.Element) (*graph, error) {
	o, err := r.sessionOptions(1, false)
	if err != nil {
		return nil, err
	}
	defer o.Destroy()
	var in, out []string
	for i := range n {
		in, out = append(in, "from"+strconv.Itoa(i)), append(out, "to"+strconv.Itoa(i))
	}
	s, err := ort.NewDynamicAdvancedSessionWithONNXData(identities(in, out, e), in, out, o)
	if err != nil {
		return nil, fmt.Errorf("%w: ONNX Runtime %s copies no caches: %s", pipeline.ErrUnsupported, r.version, oneLine(err))
	}
	return &graph{"the copying of caches", r.where(), s, r.library, in, out}, nil
}

// identities is an ONNX model (onnx.proto) of one Identity for each pair of names.
func identities(in, out []string, e kernel.Element) []byte {
	number := func(b []byte, field protowire.Number, n uint64) []byte {
		return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), n)
	}
	bytes := func(b []byte, field protowire.Number, v []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), v)
	}
	var shape []byte
	for i := range 4 {
		shape = bytes(shape, 1, bytes(nil, 2, []byte{'a' + byte(i)})) // TensorShapeProto.dim, dim_param
	}
	kind := bytes(nil, 1, bytes(number(nil, 1, uint64(e)), 2, shape)) // TypeProto.tensor_type: elem_type, shape
	var graph []byte
	for i := range in {
		node := bytes(bytes(bytes(nil, 1, []byte(in[i])), 2, []byte(out[i])), 4, []byte("Identity")) // input, output, op_type
		graph = bytes(graph, 1, node)
	}
	graph = bytes(graph, 2, []byte("copier")) // name
	for i := range in {
		graph = bytes(graph, 11, bytes(bytes(nil, 1, []byte(in[i])), 2, kind)) // input
	}
	for i := range out {
		graph = bytes(graph, 12, bytes(bytes(nil, 1, []byte(out[i])), 2, kind)) // output
	}
	model := bytes(number(nil, 1, 8), 7, graph)               // ir_version, graph
	return bytes(model, 8, number(bytes(nil, 1, nil), 2, 17)) // opset_import: domain, version
}

// copyCaches runs a copier.
func copyCaches[V kernel.Operand](copier *graph, from []V, to []*kernel.Tensor) error {
	var in, out []kernel.Operand
	for i := range from {
		in, out = append(in, from[i]), append(out, to[i])
	}
	run, err := kernel.NewRun(copier.library, copier.session, copier.inputs, copier.outputs, in, out)
	if err != nil {
		return err
	}
	defer run.Close()
	c, err := begin(context.Background())
	if err != nil {
		return err
	}
	defer c.end()
	return c.repeat(copier, run)
}
