"""Caffe's messages as protobuf itself understands them, built at run time without protoc."""

from __future__ import annotations

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_Field = descriptor_pb2.FieldDescriptorProto


def _add(message, name: str, number: int, kind: int, *, many=False, packed=None, of=None) -> None:
    field = message.field.add(name=name, number=number, type=kind)
    field.label = _Field.LABEL_REPEATED if many else _Field.LABEL_OPTIONAL
    if packed is not None:
        field.options.packed = packed
    if of:
        field.type_name = f".caffe.{of}"


def net_parameter(*, packed: bool) -> type:
    """Returns the message class NetParameter; the numbers are those of BVLC's caffe.proto.

    Args:
        packed: Whether repeated numbers are written packed.
    """
    file = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe", syntax="proto2")
    shape = file.message_type.add(name="BlobShape")
    _add(shape, "dim", 1, _Field.TYPE_INT64, many=True, packed=packed)
    blob = file.message_type.add(name="BlobProto")
    for number, name in enumerate(("num", "channels", "height", "width"), 1):
        _add(blob, name, number, _Field.TYPE_INT32)
    _add(blob, "data", 5, _Field.TYPE_FLOAT, many=True, packed=packed)
    _add(blob, "diff", 6, _Field.TYPE_FLOAT, many=True, packed=packed)
    _add(blob, "shape", 7, _Field.TYPE_MESSAGE, of="BlobShape")
    _add(blob, "double_data", 8, _Field.TYPE_DOUBLE, many=True, packed=packed)
    layer = file.message_type.add(name="LayerParameter")
    _add(layer, "name", 1, _Field.TYPE_STRING)
    _add(layer, "type", 2, _Field.TYPE_STRING)
    _add(layer, "bottom", 3, _Field.TYPE_STRING, many=True)
    _add(layer, "loss_weight", 5, _Field.TYPE_FLOAT, many=True)
    _add(layer, "blobs", 7, _Field.TYPE_MESSAGE, many=True, of="BlobProto")
    v1 = file.message_type.add(name="V1LayerParameter")
    _add(v1, "bottom", 2, _Field.TYPE_STRING, many=True)
    _add(v1, "name", 4, _Field.TYPE_STRING)
    _add(v1, "type", 5, _Field.TYPE_INT32)
    _add(v1, "blobs", 6, _Field.TYPE_MESSAGE, many=True, of="BlobProto")
    _add(v1, "blobs_lr", 7, _Field.TYPE_FLOAT, many=True)
    net = file.message_type.add(name="NetParameter")
    _add(net, "name", 1, _Field.TYPE_STRING)
    _add(net, "layers", 2, _Field.TYPE_MESSAGE, many=True, of="V1LayerParameter")
    _add(net, "input", 3, _Field.TYPE_STRING, many=True)
    _add(net, "force_backward", 5, _Field.TYPE_BOOL)
    _add(net, "layer", 100, _Field.TYPE_MESSAGE, many=True, of="LayerParameter")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("caffe.NetParameter"))
