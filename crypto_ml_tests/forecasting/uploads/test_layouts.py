"""Columns are found under the names that people and sites give them, where those mean one thing."""

import pytest

from crypto_ml.forecasting.uploads.layouts import COLUMNS_SETTING, columns_given
from crypto_ml_tests.forecasting.uploads.files import HEADER, Taken, csv, line, take

ROW = line()
OHLC = "10,12,9,11"
KLINE = "1519862400000,10,12,9,11,5.5,1519948799999,60.5,7,1.5,16.5,0"
KLINE_HEADER = "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,taker_quote,ignore"
CMC = "timeOpen;timeClose;timeHigh;timeLow;name;open;high;low;close;volume;marketCap;circulatingSupply;timestamp"
CMC_ROW = (
    '"2018-03-01T00:00:00.000Z";"2018-03-01T23:59:59.999Z";"2018-03-01T15:53:00.000Z";"2018-03-01T00:34:00.000Z";"2781";'
    '10.00;12.00;9.00;11.00;60.5;500.00;45.0;"2018-03-01T23:59:59.999Z"'
)


def the_row(taken: Taken) -> list[object]:
    """Symbol, day, prices, market and volume (0 where there is none) of a file of one row, and its line."""
    assert taken.intake.refusal is None
    assert taken.refused == []
    (row,) = taken.rows.fillna({"volume": 0.0}).to_dict("records")
    prices = [row[name] for name in ("open", "high", "low", "close", "market", "volume")]
    return [row["symbol"], str(row["date"].date()), *prices, row["line"]]


EXPECTED = ["BTC", "2018-03-01", 10.0, 12.0, 9.0, 11.0]


@pytest.mark.parametrize(
    ("content", "called", "layout", "rest"),
    [
        pytest.param(csv(KLINE, header=KLINE_HEADER), "BTCUSDT-1d.csv", "Binance klines", [0.0, 60.5, 2], id="klines"),
        pytest.param(
            csv(header=KLINE), "uploads/a/BTCUSDT-1d-2018-03.csv.gz", "Binance klines", [0.0, 60.5, 1], id="headerless"
        ),
        pytest.param(
            csv(header=KLINE.replace("00000,", "00000000,").replace("999,60", "999999,60")),
            *("BTCUSDC-1d-2018-03-01.csv", "Binance klines", [0.0, 60.5, 1]),
            id="headerless, in microseconds",
        ),
        pytest.param(
            csv(f"2018-03-01,{OHLC},11,60.5", header="Date,Open,High,Low,Close,Adj Close,Volume"),
            *("BTC-USD.csv", "Yahoo Finance download", [0.0, 60.5, 2]),
            id="Yahoo",
        ),
        pytest.param(
            csv(
                '"Mar 01, 2018","10.00","12.00","9.00","11.00","1,060,500","500"',
                header="Date,Open*,High,Low,Close**,Volume,Market Cap",
            ),
            *("BTC-USD (1).csv", None, [500.0, 1060500.0, 2]),
            id="CoinMarketCap, as its page was",
        ),
        pytest.param(
            b"\xef\xbb\xbf" + csv(CMC_ROW, header=CMC),
            *("BTC-USD.csv", "CoinMarketCap download", [500.0, 60.5, 2]),
            id="CoinMarketCap",
        ),
        pytest.param(
            csv(
                "Unix,Date,Symbol,Open,High,Low,Close,Volume BTC,Volume USDT",
                "1519862400,2018-03-01 00:00:00,BTC,10,12,9,11,1,2",
                header="https://www.CryptoDataDownload.com",
            ),
            *("Binance_BTCUSDT_d.csv", "CryptoDataDownload", [0.0, 0.0, 3]),
            id="CryptoDataDownload",
        ),
        pytest.param(
            csv(
                '"03/01/2018","11.0","10.0","12.0","9.0","5.68K","-0.52%"',
                '"03/13/2018","0","10","12","9","-","1%"',
                header='"Date","Price","Open","High","Low","Vol.","Change %"',
            ),
            *("BTC_USD.csv", "Investing.com download", [0.0, 0.0, 2]),
            id="Investing.com",
        ),
    ],
)  # fmt: skip
def test_a_known_layout_is_read_and_named(content: bytes, called: str, layout: str | None, rest: list[float]) -> None:
    taken = take(content, called=called)
    assert taken.intake.read_as is not None
    assert taken.intake.read_as.layout == layout
    first = taken.rows[taken.rows["date"] == "2018-03-01"]
    assert the_row(Taken(taken.intake, first, taken.repeats, taken.refused_rows[:0])) == [*EXPECTED, *rest]


def test_a_coingecko_export_is_refused_by_name() -> None:
    reason = take(b"snapped_at,price,market_cap,total_volume\n2018-03-01 00:00:00 UTC,1,2,3\n").intake.refusal
    assert "CoinGecko export, which has one price for each day" in str(reason)


def test_the_three_header_lines_of_yfinance_are_known_and_what_to_do_is_said() -> None:
    lines = ("Ticker,BTC-USD,BTC-USD,BTC-USD,BTC-USD,BTC-USD", "Date,,,,,", "2018-03-01,11,12,9,10,60.5")
    reason = take(csv(*lines, header="Price,Close,High,Low,Open,Volume"), called="BTC-USD.csv").intake.refusal
    assert "yf.download('BTC-USD', multi_level_index=False).to_csv('BTC-USD.csv')" in str(reason)


@pytest.mark.parametrize(
    ("header", "row", "currency"),
    [
        ("symbol,date,open,high,low,close,market", 'BTC,2018-03-01,"10 €","12 €","9 €","11 €",500', "€"),
        ("symbol,date,Open (EUR),High (EUR),Low (EUR),Close (EUR),market", ROW, "EUR"),
        ("symbol,date,Open (USD),High (USD),Low (USD),Close (USD),market", ROW, None),
        ("symbol,date,open,high,low,close,market", 'BTC,2018-03-01,"$10","$12","$9","$11",500', None),
    ],
)
def test_prices_in_another_currency_than_dollars_are_noted(header: str, row: str, currency: str | None) -> None:
    intake = take(csv(row, header=header)).intake
    assert intake.refusal is None and intake.read_as is not None
    assert [f"prices are in {currency}: " in note for note in intake.read_as.notes()] == [True] * (currency is not None)


@pytest.mark.parametrize(
    "header",
    [
        "Symbol,Date,Open,High,Low,Close,Market Cap",
        "SYMBOL,DATE,OPEN (USD),HIGH [usd],LOW ($),CLOSE (US$),MARKET CAP (USD)",
        "symbol,Timestamp,Open*,High,Low,Close**,Market-Cap",
        "symbol,datetime,priceOpen,priceHigh,priceLow,priceClose,mkt_cap",
    ],
)
def test_columns_are_found_however_their_names_are_written(header: str) -> None:
    assert the_row(take(csv(ROW, header=header))) == [*EXPECTED, 500.0, 0.0, 2]


def test_where_the_names_are_as_asked_no_other_name_means_anything() -> None:
    header = f"{HEADER},Market Cap,Open*,Volume (USD),Timestamp"
    taken = take(csv(ROW + ",1,2,3,4", header=header))
    assert the_row(taken) == [*EXPECTED, 500.0, 0.0, 2]
    assert taken.intake.ignored_columns == ("Market Cap", "Open*", "Volume (USD)", "Timestamp")


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("symbol,time,timestamp,open,high,low,close", "more than one column for date"),
        ("symbol,date,Open (USD),Open (EUR),high,low,close", "more than one column for open"),
        ("symbol,date,Open (USD),High (EUR),low,close,market", "in several currencies: eur, usd"),
        ("symbol,date,open,high,low", "the required columns close, market missing"),
        ("symbol;date;open;high;low", "its columns are: symbol, date, open, high, low"),
        ("date,open,high,low,close,market,colour", "add a column symbol, or name the file as BTC-USD.csv is"),
    ],
)
def test_what_may_be_two_things_or_is_not_there_is_refused(header: str, reason: str) -> None:
    assert reason in str(take(csv(ROW, header=header), called="prices.csv").intake.refusal)


@pytest.mark.parametrize(
    ("called", "symbol"),
    [
        *(("BTC-USD.csv", "BTC"), ("a/b/ETH_USDT.csv", "ETH"), ("BTCUSDT.csv", "BTC")),
        ("1INCHUSDT-1d-2024-01.csv", "1INCH"),
        *(("SOL-USD (2).csv", "SOL"), ("BTC-USD.parquet", "BTC"), ("BTCUSDT_2024-01-01.csv.gz", "BTC")),
        *((name, None) for name in ("BTC.csv", "btc-usd.csv", "prices.csv", "PRICES-USD.csv", "", "USD.csv")),
        *((name, None) for name in ("BTC-EUR.csv", "ETHBTC.csv", "BTCTUSD.csv", "BTCBUSD-1d.csv", "BTC-USD-PERP.csv")),
        *((f"BTCUSDT-{every}-2024-01.csv", None) for every in ("1h", "15m", "1w", "1mo", "3d")),
    ],
)  # fmt: skip
def test_a_symbol_is_taken_from_the_name_of_a_file_where_that_has_one_meaning(called: str, symbol: str | None) -> None:
    taken = take(csv(f"2018-03-01,{OHLC}", ",,,,", header="date,open,high,low,close"), called=called)
    assert (taken.intake.refusal is None) == (symbol is not None)
    assert taken.rows["symbol"].tolist() == ([symbol] if symbol else [])
    assert taken.refused == []  # a line without a value is none, whatever its file is called


def test_names_with_two_meanings_are_refused_with_both() -> None:
    reason = take(csv(f"2018-03-01,{OHLC}", header="date,open,high,low,close"), called="BTCTUSD.csv").intake.refusal
    assert "the name BTCTUSD.csv may mean BTC or BTCT" in str(reason)


@pytest.mark.parametrize(("second", "refused"), [("Bitcoin", False), ("", False), ("Ethereum", True)])
def test_a_file_of_several_coins_is_not_called_by_one_name(second: str, refused: bool) -> None:
    lines = [f"Bitcoin,2018-03-01,{OHLC}", f"{second},2018-03-02,{OHLC}"]
    taken = take(csv(*lines, header="Name,date,open,high,low,close"), called="BTC-USD.csv")
    assert ("of several coins (Bitcoin and Ethereum)" in str(taken.intake.refusal)) == refused
    assert len(taken.rows) == (0 if refused else 2)


@pytest.mark.parametrize(
    ("column", "value", "refused"),
    [
        *(("Ticker", value, True) for value in ("ETH-USD", "BTC-EUR", "BTC/EUR", "ETHUSDT", "ETH_USDT")),
        *(("Ticker", value, False) for value in ("BTC-USD", "BTC/USDT", "BTCUSDT", "BTCUSDC", "BTC", "USD", "2781")),
        *(("Name", value, False) for value in ("Bitcoin", "BTC", "bitcoin-usd", "TUSD", "TrueUSD")),
        ("Pair", "ETH/USD", True),
    ],
)
def test_a_column_with_the_pair_of_another_coin_is_not_overruled_by_the_name_of_the_file(
    column: str, value: str, refused: bool
) -> None:
    lines = ["2018-03-01,1,2,1,2," + value]
    taken = take(csv(*lines, header=f"date,open,high,low,close,{column}"), called="BTC-USD.csv")
    assert (f"of BTC, and in its rows stands {value};" in str(taken.intake.refusal)) == refused


def test_without_a_market_column_the_market_is_unknown_and_that_is_said() -> None:
    taken = take(csv(f"BTC,2018-03-01,{OHLC},5", header="symbol,date,open,high,low,close,markt"))
    assert the_row(taken) == [*EXPECTED, 0.0, 0.0, 2]
    assert taken.intake.ignored_columns == ("markt",)
    assert taken.intake.read_as is not None
    assert "no column has the market capitalisation" in taken.intake.read_as.notes()[0]


def test_columns_may_be_named_by_whoever_knows_them() -> None:
    asked = columns_given("symbol=Simbolo, date=DATA,open=Apertura,high=Massimo,low=Minimo,close=Chiusura,market=Cap.")
    content = csv(ROW.replace(",", ";"), header="simbolo;Data;Apertura;Massimo;Minimo;Chiusura;Cap.")
    assert the_row(take(content, columns=asked)) == [*EXPECTED, 500.0, 0.0, 2]
    assert the_row(take(csv(ROW), columns=asked)) == [*EXPECTED, 500.0, 0.0, 2]
    swapped = take(
        csv(ROW, header="symbol,date,close,high,low,open,market"), columns={"open": "close", "close": "open"}
    )
    assert the_row(swapped) == [*EXPECTED, 500.0, 0.0, 2]
    assert COLUMNS_SETTING in str(take(csv(ROW, header="symbol,date,a,b,c,d,e")).intake.refusal)


@pytest.mark.parametrize("text", ["open", "open=", "colour=red", "open=a,open=b", "open=a,close=A", "=x"])
def test_names_of_columns_that_say_nothing_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="like open=Apertura"):
        columns_given(text)


def test_several_rows_a_day_are_no_daily_data_whoever_writes_them() -> None:
    klines = [KLINE.replace("1519862400000", str(1519862400000 + hour * 3_600_000)) for hour in range(24)]
    for content in (
        csv(*(kline.replace(",11,", f",1{number % 2}.5,") for number, kline in enumerate(klines)), header=KLINE_HEADER),
        csv(*(line(date=f"2018-03-01T{hour:02d}:00:00Z", close=f"1{hour % 2}.5") for hour in range(24))),
    ):
        reason = take(content, called="BTCUSDT.csv").intake.refusal
        assert "several rows a day, so it is no daily data" in str(reason)
        assert "line 3" in str(reason)
    two_at_noon = [line(symbol=symbol, date=f"2018-03-0{day} 1{day}:00") for symbol in ("A", "B") for day in (1, 2)]
    assert take(csv(*two_at_noon)).intake.refusal is None
